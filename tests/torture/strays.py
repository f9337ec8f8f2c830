"""Files of somebody else in and around outputs, and names that climb out of their folder: nothing of theirs may change.

In: a folder that holds a user's files, a command that is to write there.  Out: `Outcome`s.  Cost: a run of the command.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.torture.attack import Attack
from tests.torture.children import Ended
from tests.torture.numbers import differing, numbers
from tests.torture.outcomes import Outcome

STAGES = ("model", "report", "bench", "preference", "gate", "probe", "debias", "uncertainty", "features")
LEAVES = {
    "bench": "results.json",
    "audit": "audit.html",
    "export": "config.json",
    "score-jsonl": "scored.jsonl",
    "best-of": "best.jsonl",
}
ODD = (
    "note.part",
    "x.99999999999999999999.part",
    "notes.txt",
    ".DS_Store",
    "a.1.b.part",
    ".part",
    "shard-x.json",
    "..part",
    "é\n.part",
)
CLIMBING = (
    "../../../others/victim",
    "../victim",
    "a/../../../../../others/victim",
    ".",
    "..",
    "/tmp/armorm-torture-absolute",
    "x/y",
)
Files = dict[str, str]


class Strays(Attack):
    """One folder of a user's with one command let loose on it."""

    name, weight = "strays", 2.0

    def attack(self, draw: random.Random) -> Iterator[Outcome]:
        way = draw.choice((self._own_run, self._own_output, self._odd_names, self._climbing, self._beside))
        with self.world.folder() as place:
            yield from way(draw, place)

    def _own_run(self, draw: random.Random, place: Path) -> Iterator[Outcome]:
        """`train --out` where the user keeps folders of the stages' names, a recipe and notes."""
        names = [f"{name}/{draw.choice(('precious.txt', 'stage.json', 'results.json', 'sub/x.bin'))}" for name in STAGES]
        mine = _write(
            place, "run", [*draw.sample(names, draw.randint(1, 3)), "notes.txt", *(["recipe.yaml"] * (draw.random() < 0.5))]
        )
        yield self._kept("train", place, mine, "train into a user's folder", right=False)

    def _own_output(self, draw: random.Random, place: Path) -> Iterator[Outcome]:
        """A job whose output's name is a user's file, or a folder that holds one."""
        name = draw.choice(sorted(LEAVES))
        job = self.world.jobs[name]
        self.world.place_of(job, place)
        target = place / job.leaves
        files = [LEAVES[name], "notes.txt"] if not target.suffix else []
        mine = (
            _write(place, job.leaves, draw.sample(files, draw.randint(1, len(files))))
            if files
            else _write(place, "", [job.leaves])
        )
        yield self._kept(name, place, mine, f"{name} onto a user's file", right=False)

    def _odd_names(self, draw: random.Random, place: Path) -> Iterator[Outcome]:
        """A finished run with files of odd names among the features and in the run's folder; run again, to the same numbers."""
        shutil.copytree(self.world.golden / "train" / "run", place / "run")
        stores = sorted(p for p in (place / "run" / "features").iterdir() if p.is_dir())
        homes = [place / "run", place / "run" / "features", *stores]
        mine: Files = {}
        for name in draw.sample(ODD, 3):
            mine |= _write(place, str(draw.choice(homes).relative_to(place)), [name])
        if draw.random() < 0.5:
            for stage in ("bench", "report"):
                shutil.rmtree(place / "run" / stage)
        yield self._kept("train", place, mine, "odd names in a run's folder", right=True)

    def _beside(self, draw: random.Random, place: Path) -> Iterator[Outcome]:
        """Files beside an output whose names are like those that a job writes for itself."""
        name = draw.choice(("score-jsonl", "score-gz", "score-parquet", "bench", "audit", "export"))
        job = self.world.jobs[name]
        self.world.place_of(job, place)
        likes = (
            f"{job.leaves}.bak",
            f"{job.leaves}.old.part",
            f"{job.leaves}.notes",
            "x.part",
            f"{job.leaves}2",
            "part-0000000.parquet",
        )
        yield self._kept(name, place, _write(place, "", draw.sample(likes, 3)), f"{name} beside a user's files", right=True)

    def _climbing(self, draw: random.Random, place: Path) -> Iterator[Outcome]:
        """A recipe whose name, a source's or a suite's is a path."""
        recipe = yaml.safe_load((self.world.inputs / "rows" / "recipe.yaml").read_text())
        which, name = draw.choice(("name", "ratings", "pairs", "bench")), draw.choice(CLIMBING)
        if which == "name":
            recipe["name"] = name
        else:
            recipe[which][0]["name"] = name
        (place / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        mine = _write(place, "", ["notes.txt", "victim/model/a.bin", "model/x"])
        out = [] if which == "name" else ["--out", "out/run"]
        ended = self.world.do(["train", "recipe.yaml", *out], place, limit=self.limit_of("train"))
        allowed = {"recipe.yaml", *mine}
        roots = {"runs"} if which == "name" else {"out"}
        new = sorted(f for f in _read(place) if f not in allowed and Path(f).parts[0] not in roots)
        if which != "name":
            new += sorted(f for f in _read(place / "out") if Path(f).parts[0] != "run")
        yield self._told(ended, f"{which} {name!r}", {"said": ended.told}, _changed(place, mine), new)

    def _kept(self, name: str, place: Path, mine: Files, kind: str, *, right: bool) -> Outcome:
        """A job over a user's files: they are as they were; where they are not in its way, its numbers are right too."""
        job = self.world.jobs[name]
        ended = self.world.do(job.words, place, limit=self.limit_of(name))
        outcome = self._told(ended, kind, {"files": sorted(mine), "said": ended.told}, _changed(place, mine), [])
        if outcome.verdict == "survived" and right:
            theirs = {str(Path(f).relative_to(job.leaves)) for f in mine if Path(f).is_relative_to(job.leaves)}
            now = {k: v for k, v in numbers(place / job.leaves).items() if k not in theirs}
            if wrong := differing(self.world.numbers[name], now):
                return Outcome("silent", kind, f"differs: {', '.join(wrong[:4])}", outcome.how, outcome.rss)
        return outcome

    def _told(self, ended: Ended, kind: str, how: dict[str, object], changed: list[str], new: list[str]) -> Outcome:
        if changed or new:
            told = "; ".join(
                [f"changed: {', '.join(changed[:4])}"] * bool(changed) + [f"appeared: {', '.join(new[:4])}"] * bool(new)
            )
            return Outcome("touched", kind, told, how, ended.rss)
        if ended.verdict == "ok":
            return Outcome("survived", kind, "", how, ended.rss)
        if ended.verdict == "refused":
            return Outcome("refused", kind, ended.error or "error", how, ended.rss)
        return Outcome("hang" if ended.hung else "traceback", kind, ended.told, {**how, "said": ended.err[-1500:]}, ended.rss)


def _write(place: Path, home: str, names: list[str]) -> Files:
    """A user's files; their digests by their paths."""
    paths = [place / home / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"mine: {path.name}\n", encoding="utf-8")
    return {str(path.relative_to(place)): _digest(path) for path in paths}


def _changed(place: Path, mine: Files) -> list[str]:
    return sorted(name for name, digest in mine.items() if _digest(place / name) != digest)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "gone"


def _read(place: Path) -> Files:
    return {str(p.relative_to(place)): "" for p in place.rglob("*") if p.is_file()}
