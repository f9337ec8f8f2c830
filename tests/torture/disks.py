"""A disk that is full after so many kilobytes; then more room, and the same command again.

In: a small file system in memory, a job.  Out: `Outcome`s.  Cost: two runs of the job.
Where mounting isn't allowed, a limit on the size of a file stands in, and the table says so.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.torture.attack import Attack
from tests.torture.outcomes import Outcome
from tests.torture.world import Job

OFTEN = {"train": 8, "score-jsonl": 2, "score-gz": 2, "score-parquet": 2, "audit": 2, "bench": 2, "export": 2, "tune": 2}
CLONE_NEWNS = 0x20000
ROOM = "64m"
FULL = ("full", "space", "make room", "can't be written", "File too large")


class Disks(Attack):
    """One full disk."""

    name, weight = "disks", 2.0

    def prepare(self) -> None:
        """A namespace of its own for mounts, which go with this process."""
        self._mounts = _own_mounts() and _mounted(self.world.work, "64k")
        if self._mounts:
            _unmounted(self.world.work)
        else:
            self.note = "mounting is not allowed here: a limit on the size of a file stood in for a full disk"

    def attack(self, draw: random.Random) -> Iterator[Outcome]:
        names = list(self.world.jobs)
        job = self.world.jobs[draw.choices(names, [OFTEN.get(name, 1) for name in names])[0]]
        whole = sum(p.stat().st_size for p in (self.world.golden / job.name / job.leaves).rglob("*") if p.is_file())
        whole = whole or (self.world.golden / job.name / job.leaves).stat().st_size
        size = draw.choice((0, 4, 8, int(whole / 1024 * draw.random()), int(whole / 1024 * draw.random())))
        with self.world.folder() as place:
            self.world.place_of(job, place)
            yield from self._full(job, place, size) if self._mounts else self._limited(job, place, size)

    def _full(self, job: Job, place: Path, size: int) -> Iterator[Outcome]:
        # Inputs stay outside; what the job leaves goes to the small disk by a link's name.
        disk = place / "disk"
        disk.mkdir()
        words = [job.words[0], *(str(disk / job.leaves) if word == job.leaves else word for word in job.words[1:])]
        how = {"job": job.name, "kilobytes": size}
        _mounted(disk, f"{max(4, size)}k")
        try:
            ended = self.world.do(words, place, limit=self.limit_of(job.name))
            verdict, told = self._met(ended.verdict, ended.told)
            if verdict not in ("survived", "refused"):
                yield Outcome(verdict, f"full: {job.name}", told, {**how, "said": ended.err[-1500:]}, ended.rss)
            subprocess.run(["mount", "-o", f"remount,size={ROOM}", str(disk)], check=True)
            again = self.world.do(words, place, limit=self.limit_of(job.name))
            yield self.finished(job, disk, again, job.name, how)
        finally:
            _unmounted(disk)

    def _limited(self, job: Job, place: Path, size: int) -> Iterator[Outcome]:
        how = {"job": job.name, "kilobytes": size, "limit": "RLIMIT_FSIZE"}

        def work() -> None:
            from armorm.cli import main

            resource.setrlimit(resource.RLIMIT_FSIZE, (max(4, size) << 10, resource.RLIM_INFINITY))
            sys.argv = ["armorm", *job.words]
            main()

        ended = self.world.do(work, place, limit=self.limit_of(job.name))
        verdict, told = self._met(ended.verdict, ended.told)
        if verdict not in ("survived", "refused"):
            yield Outcome(verdict, f"full: {job.name}", told, {**how, "said": ended.err[-1500:]}, ended.rss)
        again = self.world.do(job.words, place, limit=self.limit_of(job.name))
        yield self.finished(job, place, again, job.name, how)

    def _met(self, verdict: str, told: str) -> tuple[str, str]:
        # How a job met a full disk: there was room after all, an error that says so, or something else.
        if verdict == "ok":
            return "survived", ""
        if verdict == "refused":
            return ("refused", "") if any(word in told for word in FULL) else ("unnamed", told)
        return (verdict if verdict == "hang" else "traceback"), told


def _own_mounts() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or libc.unshare(CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False).returncode == 0


def _mounted(place: Path, size: str) -> bool:
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False)
    return made.returncode == 0


def _unmounted(place: Path) -> None:
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)
