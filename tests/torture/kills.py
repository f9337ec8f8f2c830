"""SIGKILL, SIGINT and SIGTERM at any moment of a job; then the same command again, which has to end with the same numbers.

In: a job, the share of its time after which it is hit.  Out: `Outcome`s.  Cost: a run and a half of the job.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from tests.torture.attack import Attack
from tests.torture.children import Child, Ended
from tests.torture.outcomes import Outcome
from tests.torture.world import Job

OFTEN = {"train": 6, "score-jsonl": 3, "score-gz": 2, "score-parquet": 3, "bench": 2, "audit": 2, "tune": 2}
STARTING = 0.02
"""Seconds in which a child is not yet the command: a signal would meet the fork."""
SWALLOWED = 0.5
"""Seconds that a command may go on behind a signal that comes as it ends."""


class Kills(Attack):
    """One SIGKILL, sometimes two in a row, and the run that ends what was begun."""

    name, weight = "kills", 8.0
    signals: tuple[int, ...] = (signal.SIGKILL,)

    def attack(self, draw: random.Random) -> Iterator[Outcome]:
        names = list(self.world.jobs)
        job = self.world.jobs[draw.choices(names, [OFTEN.get(name, 1) for name in names])[0]]
        with self.world.folder() as place:
            self.world.place_of(job, place)
            hits = 0
            for _ in range(draw.choice((1, 1, 1, 2))):
                number, share = draw.choice(self.signals), draw.random()
                stage, ended, late = self._hit(job, place, number, share)
                how = {"job": job.name, "signal": signal.Signals(number).name, "share": round(share, 4), "stage": stage}
                if wrong := self._wrong(ended, late, stage, how):
                    yield wrong
                    return
                met = late >= 0 and ended.verdict in ("killed", "interrupted")
                hits, self.missed = hits + met, self.missed + (not met)
            if hits:
                again = self.world.do(job.words, place, limit=self.limit_of(job.name))
                yield replace(self.finished(job, place, again, stage, how), count=hits)

    def _hit(self, job: Job, place: Path, number: int, share: float) -> tuple[str, Ended, float]:
        child = Child(job.words, place)
        sent = child.runs(STARTING + share * self.world.durations[job.name])
        stage = f"{job.name}: {_stage(place / 'run')}" if job.name == "train" else job.name
        seconds = _now(child)
        child.send(number)
        ended = child.wait(self.limit_of(job.name))
        return stage, ended, ended.seconds - seconds if sent else -1.0

    def _wrong(self, ended: Ended, late: float, stage: str, how: dict[str, object]) -> Outcome | None:
        # What is wrong with the way a job met the hit, if anything is.
        if ended.verdict in ("killed", "interrupted"):
            return None
        if ended.verdict == "ok":
            swallowed = late > SWALLOWED and how["signal"] != "SIGKILL"
            return Outcome("silent", stage, "the signal was swallowed", how, ended.rss) if swallowed else None
        if ended.code == -signal.SIGTERM and not ended.err:  # before the command took over
            return None
        verdict = ended.verdict if ended.verdict in ("hang", "refused") else "traceback"
        return Outcome(verdict, stage, ended.told, {**how, "said": ended.err[-600:]}, ended.rss)


class Signals(Kills):
    """SIGINT and SIGTERM: exit code 130, a word, and the same command goes on from there."""

    name, weight = "signals", 2.0
    signals = (signal.SIGINT, signal.SIGTERM)


def _now(child: Child) -> float:
    return time.perf_counter() - child.start


def _stage(run: Path) -> str:
    # The stage that was under way: the first that is not finished.
    names = ("features", "probe", "uncertainty", "debias", "gate", "preference", "model", "bench", "report")
    if not (run / "features").exists():
        return "rows"
    return next((a for a, b in pairwise(names) if not (run / b).exists()), "end")
