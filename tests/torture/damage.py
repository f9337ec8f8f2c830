"""Flipped bits, cuts and missing files in everything a run, a model and a job leave; then what relies on them.

In: a finished (or stopped) result, a file of it.  Out: `Outcome`s.  Cost: a copy and one run of the reader.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.torture.attack import Attack
from tests.torture.children import Ended
from tests.torture.numbers import PAGES, UNTOLD, differing, numbers
from tests.torture.outcomes import Outcome
from tests.torture.world import Job

STAGES = ("probe", "uncertainty", "debias", "gate", "preference", "model", "bench", "report")
SOURCES = ("features", "statistics")
"""What a finished run has no need to read."""
STOPPED = ("score-jsonl", "score-gz", "score-parquet", "tune")
WINDOWS = 3
FAULTY = 2


@dataclass(frozen=True)
class Hurt:
    """What was done to a file: `before` and `after` are its bytes, `after` None for one that is gone."""

    path: Path
    before: bytes
    after: bytes | None
    told: str

    @property
    def still_there(self) -> bool:
        """Whether the file is as the damage left it."""
        return (self.path.read_bytes() if self.path.is_file() else None) == self.after


class Flips(Attack):
    """One flipped bit."""

    name, weight = "flips", 9.0

    def prepare(self) -> None:
        """Results of scoring that were stopped behind some windows, and of a training behind some checkpoints."""
        self.stopped = self.world.base / "stopped"
        if not self.stopped.exists():
            self.stopped.mkdir()
            for name in STOPPED:
                job = self.world.jobs[name]
                self.world.place_of(job, self.stopped / name)
                ended = self.world.do(lambda job=job: _stopping(job), self.stopped / name)
                assert ended.verdict == "killed", (name, ended)
            self.world.touched()

    def attack(self, draw: random.Random) -> Iterator[Outcome]:
        way = draw.choices(
            (self._of_run, self._of_features, self._of_model, self._of_stopped, self._of_finished), (6, 4, 6, 3, 2)
        )[0]
        with self.world.folder() as place:
            yield from way(draw, place)

    def _ways(self) -> tuple[Callable[[random.Random, Path], Iterator[Outcome]], ...]:
        return (self._of_run, self._of_features, self._of_model, self._of_stopped, self._of_finished, self._verified)

    def hurt(self, draw: random.Random, path: Path) -> Hurt | None:
        """Damage a file; None for one that is empty."""
        before = path.read_bytes()
        if not before:
            return None
        bit = draw.randrange(8 * len(before))
        after = bytearray(before)
        after[bit // 8] ^= 1 << bit % 8
        path.write_bytes(after)
        return Hurt(path, before, bytes(after), f"bit {bit} flipped")

    # -- what is damaged, and who relies on it -------------------------------------------------------------------------------

    def _of_run(self, draw: random.Random, place: Path) -> Iterator[Outcome]:
        """Any file of a finished run; the same command again, or a check of the folder."""
        self._copy("train", place)
        files = [p for p in _files(place / "run") if p.relative_to(place / "run").parts[0] != "features"]
        if (hurt := self.hurt(draw, draw.choice(_even(draw, files)))) is not None:
            yield self._judged(self.world.jobs["train"], place, hurt, place / "run")

    def _of_features(self, draw: random.Random, place: Path) -> Iterator[Outcome]:
        """A file of the features or of their statistics, which every stage has to read again: they are gone."""
        self._copy("train", place)
        for stage in STAGES:
            shutil.rmtree(place / "run" / stage)
        files = _files(place / "run" / draw.choices(SOURCES, (3, 1))[0])
        if (hurt := self.hurt(draw, draw.choice(_even(draw, files)))) is not None:
            yield self._judged(self.world.jobs["train"], place, hurt, place / "run")

    def _of_model(self, draw: random.Random, place: Path) -> Iterator[Outcome]:
        """A model folder; six conversations scored."""
        shutil.copytree(self.world.golden / "train" / "run" / "model", place / "model")
        if (hurt := self.hurt(draw, draw.choice(_files(place / "model")))) is None:
            return
        ended = self.world.do(self.world.reading("model"), place)
        how = self._how(hurt, place, "score six conversations")
        same = ended.out == self.world.six
        yield _told(ended, f"model, loaded: {_kind(hurt.path, place / 'model')}", how, "harmless" if same else "silent")

    def _of_stopped(self, draw: random.Random, place: Path) -> Iterator[Outcome]:
        """What a stopped `score` or `tune` left; the same command again."""
        job = self.world.jobs[draw.choice(STOPPED)]
        shutil.copytree(self.stopped / job.name, place, dirs_exist_ok=True)
        files = [p for p in _files(place) if "model" not in p.relative_to(place).parts]
        if files and (hurt := self.hurt(draw, draw.choice(files))) is not None:
            yield self._judged(job, place, hurt, place, f"{job.name}, stopped: ")

    def _of_finished(self, draw: random.Random, place: Path) -> Iterator[Outcome]:
        """What another job left when it was finished; the same command again."""
        job = self.world.jobs[draw.choice((*STOPPED, "best-of", "bench", "audit"))]
        self._copy(job.name, place)
        files = [p for p in _files(place) if "model" not in p.relative_to(place).parts and p.suffix not in PAGES]
        if (hurt := self.hurt(draw, draw.choice(files))) is not None:
            yield self._judged(job, place, hurt, place, f"{job.name}, finished: ")

    def _verified(self, draw: random.Random, place: Path) -> Iterator[Outcome]:
        """Any file of a finished result; `verify` names it."""
        job = self.world.jobs[draw.choices(("train", *STOPPED, "bench", "audit", "export"), (8, *(1,) * 7))[0]]
        self._copy(job.name, place)
        files = [p for p in _files(place) if p.name not in UNTOLD and "model" not in p.relative_to(place).parts[:1]]
        if (hurt := self.hurt(draw, draw.choice(_even(draw, files)))) is None:
            return
        ended = self.world.do(["verify", "."], place)
        how, kind = self._how(hurt, place, "verify"), f"{job.name}, verified: {_kind(hurt.path, place)}"
        if ended.verdict == "ok":
            yield Outcome("silent", kind, "not noticed", how, ended.rss)
        elif ended.code == FAULTY and not ended.broken and hurt.path.name not in ended.out + ended.err:
            yield Outcome("unnamed", kind, ended.told, {**how, "said": ended.out[-1500:]}, ended.rss)
        elif ended.code == FAULTY and not ended.broken:
            yield Outcome("refused", kind, ended.error or "named", how, ended.rss)
        else:
            yield _told(ended, kind, how, "silent")

    # -- small change --------------------------------------------------------------------------------------------------------

    def _copy(self, name: str, place: Path) -> None:
        shutil.copytree(self.world.golden / name, place, dirs_exist_ok=True)

    def _how(self, hurt: Hurt, place: Path, reader: str) -> dict[str, Any]:
        return {"file": str(hurt.path.relative_to(place)), "damage": hurt.told, "reader": reader}

    def _judged(self, job: Job, place: Path, hurt: Hurt, root: Path, before: str = "") -> Outcome:
        """The job run again over the damage: refused, mended, or wrong without a word."""
        ended = self.world.do(job.words, place, limit=self.limit_of(job.name))
        kind, how = before + _kind(hurt.path, root), self._how(hurt, place, " ".join(job.words[:1]))
        if ended.verdict != "ok":
            return _told(ended, kind, how, "")
        wrong = differing(self.world.numbers[job.name], numbers(place / job.leaves))
        unread = hurt.path.name in UNTOLD or (hurt.path.suffix in PAGES and hurt.after is not None and not hurt.still_there)
        inside = hurt.path.relative_to(root)
        unread = unread or (hurt.still_there and wrong == [str(inside)] and inside.parts[0] in SOURCES)
        if wrong and not unread:
            return Outcome("silent", kind, f"differs: {', '.join(wrong[:4])}", how, ended.rss)
        left = (self.world.golden / job.name / hurt.path.relative_to(place)).exists()  # a checkpoint's page goes with it
        if hurt.still_there and hurt.path.suffix in PAGES and left and not unread:
            return Outcome("silent", kind, "the page stays damaged", how, ended.rss)
        return Outcome("harmless" if hurt.still_there else "survived", kind, "", how, ended.rss)


class Cuts(Flips):
    """A file cut at any place, or deleted."""

    name, weight = "cuts", 5.0

    def hurt(self, draw: random.Random, path: Path) -> Hurt | None:
        before = path.read_bytes()
        if draw.random() < 0.5 or not before:
            path.unlink()
            return Hurt(path, before, None, "deleted")
        at = draw.randrange(len(before))
        path.write_bytes(before[:at])
        return Hurt(path, before, before[:at], f"cut at byte {at} of {len(before)}")


def _told(ended: Ended, kind: str, how: dict[str, Any], fine: str) -> Outcome:
    if ended.verdict == "ok":
        return Outcome(fine, kind, "other numbers" if fine == "silent" else "", how, ended.rss)
    if ended.verdict == "refused":
        return Outcome("refused", kind, ended.error or "error", how, ended.rss)
    told = ended.err.strip().splitlines()[-1][:300] if ended.err.strip() else f"code {ended.code}"
    return Outcome("hang" if ended.hung else "traceback", kind, told, {**how, "said": ended.err[-1500:]}, ended.rss)


def _stopping(job: Job) -> None:
    """The job, killed behind its third window or checkpoint: what a power cut leaves."""
    import sys

    from armorm.cli import main
    from armorm.jobs import score_file
    from armorm.tuning import loop

    module, name = (loop, "seal") if job.name == "tune" else (score_file, "score_window")
    written, real = [], getattr(module, name)

    def counted(*given: Any, **named: Any) -> Any:
        written.append(1)
        if len(written) > WINDOWS:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)

    setattr(module, name, counted)
    sys.argv = ["armorm", *job.words]
    main()


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _even(draw: random.Random, files: list[Path]) -> list[Path]:
    # One file of each kind, so that many shards don't crowd out the one manifest.
    by_kind: dict[str, list[Path]] = {}
    for path in files:
        by_kind.setdefault(re.sub(r"\d+|[0-9a-f]{8,}", "", path.parent.name + "/" + path.name), []).append(path)
    return [draw.choice(some) for _, some in sorted(by_kind.items())]


def _kind(path: Path, root: Path) -> str:
    # A file's place without what tells its namesakes apart: features/*/shard-*.safetensors.
    inside = path.relative_to(root).parts
    return "/".join(
        re.sub(r"-[0-9a-f]{16}|\d{5,}|-of-\d+|(?<=without-fold-)\d|(?<=part-)\d+|\.\d+\.\d+(?=\.part)", "*", one)
        for one in inside
    )
