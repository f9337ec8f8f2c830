"""Where attacks take place: inputs, jobs with their undisturbed results, other people's files beside them.

In: an empty folder.  Out: `World`.  Cost: each job is run once or twice, seconds.

    inputs/   a tiny decoder, rows, a recipe        golden/JOB/   what each job leaves when nothing disturbs it
    others/   files of somebody else                work/         one folder for each attack, removed afterwards
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.small_run import TUNING, write_recipe, write_rows
from tests.tiny_decoder import write_tiny
from tests.torture.children import Ended, Work, run
from tests.torture.numbers import Numbers, differing, numbers

SIX = 6
SCORED = 96
WINDOW = 16


@dataclass(frozen=True)
class Job:
    """A command that leaves something behind. `words` are said in an own folder, `leaves` is what is compared there."""

    name: str
    words: tuple[str, ...]
    leaves: str
    brings: tuple[str, ...] = ()
    """Files of other jobs' results that are copied beside it."""


@dataclass
class World:
    """The ground, prepared once. `durations`: the undisturbed seconds of each job, `numbers`: what it left."""

    base: Path
    durations: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, Numbers] = field(default_factory=dict)
    six: str = ""
    _before: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        self.inputs, self.golden, self.others, self.work = (self.base / n for n in ("inputs", "golden", "others", "work"))
        for folder in (self.inputs, self.golden, self.others, self.work, self.base / "home"):
            folder.mkdir(parents=True)
        self._enter("lane0")
        self.jobs = {job.name: job for job in _jobs(self.inputs)}

    def prepare(self) -> None:
        """Inputs and the jobs' undisturbed results; raises where two undisturbed runs differ."""
        self._done(run(partial(_write_inputs, self.inputs), self.base), "inputs")
        _write_others(self.others)
        for job in self.jobs.values():
            self.place_of(job, self.golden / job.name)
            self.durations[job.name] = self._done(run(job.words, self.golden / job.name), job.name).seconds
            self.numbers[job.name] = numbers(self.golden / job.name / job.leaves)
        with self.folder() as place:
            for name in ("train", "score-jsonl", "bench"):
                job = self.jobs[name]
                self.place_of(job, place / name)
                self._done(run(job.words, place / name), name)
                if wrong := differing(self.numbers[name], numbers(place / name / job.leaves)):
                    raise AssertionError(f"{name}: two undisturbed runs differ in {wrong}")
        self.six = self._done(run(self.reading("model"), self.golden / "bench"), "six conversations").out
        self._before = self.snapshot()

    def enter(self, lane: int) -> None:
        """Be one of several processes that attack side by side: with folders of its own, on the same ground."""
        self._enter(f"lane{lane}")
        self._before = self.snapshot()

    def _enter(self, name: str) -> None:
        self.work = self.base / "work" / name
        self.work.mkdir(exist_ok=True)

    def reading(self, model: str) -> tuple[str, ...]:
        """The words that score six conversations, with everything that a score is made of, on stdout."""
        return ("score", model, str(self.inputs / "six.jsonl"), "--full", "--quiet")

    def place_of(self, job: Job, place: Path) -> None:
        """A folder for a job to stand in, with what it brings."""
        place.mkdir(parents=True, exist_ok=True)
        for one in job.brings:
            source = self.golden / one
            into = place / source.name
            shutil.copytree(source, into) if source.is_dir() else shutil.copy2(source, into)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A new folder, three deep, so that a path that climbs out of it meets other people's files."""
        self._count += 1
        top = self.work / f"w{self._count}"
        (top / "a" / "b").mkdir(parents=True)
        try:
            yield top / "a" / "b"
        finally:
            shutil.rmtree(top, ignore_errors=True)

    def do(self, work: Work, place: Path, *, limit: float = 60) -> Ended:
        return run(work, place, limit=limit)

    def snapshot(self) -> dict[str, tuple[Any, ...]]:
        """Everything that is no attack's own: contents of others' files, marks of inputs and results, names beside them."""
        found: dict[str, tuple[Any, ...]] = {}
        top = [p for p in self.base.iterdir() if p.name != "work"]
        for path in (*top, *(p for one in top for p in one.rglob("*"))):
            inside = path.relative_to(self.base)
            about = path.lstat()
            sized = (about.st_size, about.st_mtime_ns, about.st_ino) if path.is_file() else ()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if self.others in path.parents and path.is_file() else ""
            found[str(inside)] = (about.st_mode, *sized, content)
        strange = [p.name for p in (self.base / "work").iterdir() if "lane" not in p.name]
        found["work"] = (*strange, *sorted(p.name for p in self.work.iterdir()))
        return found

    def touched(self) -> list[str]:
        """What attacks have changed outside their folders since the last look."""
        now = self.snapshot()
        changed = sorted(name for name in {*now, *self._before} if now.get(name) != self._before.get(name))
        self._before = now
        return changed

    def _done(self, ended: Ended, what: str) -> Ended:
        if ended.verdict != "ok":
            raise AssertionError(f"{what}, undisturbed: {ended.verdict}: {ended.told}\n{ended.err[-2000:]}")
        return ended


def _jobs(inputs: Path) -> Iterator[Job]:
    model, many, rows = "model", str(inputs / "many.jsonl"), inputs / "rows"
    yield Job("train", ("train", str(rows / "recipe.yaml"), "--out", "run"), "run")
    yield Job("train-padded", ("train", str(rows / "padded.yaml"), "--out", "run"), "run")
    brings = ("train/run/model",)
    for kind in ("jsonl", "jsonl.gz", "parquet"):
        name = f"score-{kind.removeprefix('jsonl.')}"
        yield Job(name, ("score", model, many, "--out", f"scored.{kind}"), f"scored.{kind}", brings)
    yield Job("best-of", ("best-of", model, many, "--out", "best.jsonl"), "best.jsonl", brings)
    scored = ("score-jsonl/scored.jsonl", "score-jsonl/scored.jsonl.progress.json")
    yield Job("select", ("select", "scored.jsonl", "--keep-top", "0.5", "--out", "kept.jsonl"), "kept.jsonl", scored)
    yield Job("pairs", ("pairs", "scored.jsonl", "--out", "made.jsonl"), "made.jsonl", scored)
    yield Job("bench", ("bench", model, "--suite", str(rows / "bench.jsonl"), "--out", "bench"), "bench", brings)
    pairs = str(rows / "pairs.jsonl")
    yield Job("audit", ("audit", model, pairs, "--limit", "4", "--only", "flattery", "--out", "audit"), "audit", brings)
    yield Job("export", ("export", model, "exported"), "exported", brings)
    yield Job("tune", ("tune", str(rows / "recipe.yaml"), "regression", "--out", "run"), "run")
    yield Job("extract", ("extract", str(rows / "recipe.yaml"), "--out", "run", "--shard", "1/1"), "run")


def _write_inputs(inputs: Path) -> None:
    write_tiny(inputs / "tiny")
    write_rows(inputs / "rows")
    shards = {"features": {"shard_rows": 16}}
    padded = {"nuisances": ["response-tokens", "exclamation-marks"], "method": "agreed", "padded": 24}
    recipe = write_recipe(inputs / "rows", inputs / "tiny", debias=padded, backbone={"max_tokens": 480}, **shards)
    recipe.rename(inputs / "rows" / "padded.yaml")
    write_recipe(inputs / "rows", inputs / "tiny", tuning=TUNING, **shards)
    draw = random.Random(1)
    words = ["fine thank you", "return x", "hello how are you", "2 + 2 is 4", "naïve 🙂"]
    rows = [
        {
            "id": f"m{i}",
            "prompt": f"hello {i // 3} + {i // 3} is?",
            "response": " ".join(draw.choices(words, k=draw.randint(1, 12))),
        }
        for i in range(SCORED)
    ]
    for name, some in (("many", rows), ("six", rows[:SIX])):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
        (inputs / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _write_others(others: Path) -> None:
    for name in (
        "model/precious.txt",
        "report/page.html",
        "bench/results.json",
        "notes.txt",
        "recipe.yaml",
        "victim/model/a.bin",
    ):
        (others / name).parent.mkdir(parents=True, exist_ok=True)
        (others / name).write_text(f"mine: {name}\n")
