"""Stores of made-up features in any size, for benchmarks of what comes after the decoder.

In: a folder, counts of rows, a width, objectives, which of them rows are rated on.  Out: `Answers`, written as extraction writes.
Cost: a few seconds per GB of features and 10 per million rows; in memory a shard.

Every number is a function of the seed and of an answer's number, which its text holds: a window of one long line of normal
numbers, taken where the answer's number says. So a shard costs a copy and a thin product, the features have full rank, and any
shard can be made by itself. Planted are a direction per objective (ratings follow it), an answer's length (the first objective
knows it), and a weighting of the objectives per topic of the prompt (which answer of a pair wins).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from armorm.conversation import Conversation
from armorm.data.rows import PreferencePair, RatedResponse
from armorm.features.answers import Answers
from armorm.features.extract import Features
from armorm.features.spec import FeatureSpec
from armorm.features.storing import ExtractionSettings, Row, write_answers
from armorm.objectives import Objective, Objectives

FEATURE = "final:last"
LINE = 1 << 22
ANSWERS_PER_PROMPT = 4
TOPICS = 4
QUALITY, NOISE, RATED, LUCK, PROMPT = (i * 700_001 for i in range(1, 6))  # how far apart an answer's windows start


def scales(k: int) -> Objectives:
    """k objectives on a scale from 0 to 4, the first of which is about length."""
    return Objectives([Objective(name=f"o{i:02d}", min=0, max=4) for i in range(k)])


@dataclass(frozen=True)
class World:
    """What is planted: the same for all stores of one seed, width and number of objectives."""

    width: int
    objectives: Objectives
    seed: int = 0

    @cached_property
    def line(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        return rng.standard_normal(LINE + max(self.width, len(self.objectives)), dtype=np.float32)

    @cached_property
    def directions(self) -> np.ndarray:
        """One [k d] for the qualities of an answer; they are about as large as the noise of one number."""
        rng = np.random.default_rng([self.seed, 1])
        found = rng.standard_normal((len(self.objectives), self.width), dtype=np.float32)
        return 3 * found / np.linalg.norm(found, axis=1, keepdims=True)

    @cached_property
    def topics(self) -> tuple[np.ndarray, np.ndarray]:
        """Directions of the prompts' topics, [topics d], and how each weighs the objectives, [topics k]."""
        rng = np.random.default_rng([self.seed, 2])
        shown = rng.standard_normal((TOPICS, self.width), dtype=np.float32)
        return shown, rng.dirichlet(np.full(len(self.objectives), 0.3), size=TOPICS).astype(np.float32)

    def window(self, numbers: np.ndarray, width: int, what: int) -> np.ndarray:
        """Normal numbers [n width] that belong to answers (or prompts) with these numbers."""
        starts = (numbers.astype(np.uint64) * np.uint64(2_654_435_761) + np.uint64(what)) % np.uint64(LINE)
        return np.lib.stride_tricks.sliding_window_view(self.line, width)[starts.astype(np.int64)]

    def qualities(self, answers: np.ndarray) -> np.ndarray:
        return self.window(answers, len(self.objectives), QUALITY)

    def ratings(self, answers: np.ndarray) -> np.ndarray:
        """On the scale, [n k], in whole steps."""
        luck = self.window(answers, len(self.objectives), RATED)
        return np.clip(np.round(2 + self.qualities(answers) + 0.5 * luck), 0, 4)

    def wins(self, prompts: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """How good answers are to the prompts' topics, with some luck."""
        weights = self.topics[1][prompts % TOPICS]
        return (weights * self.qualities(answers)).sum(axis=1) + 0.1 * self.window(answers, 1, LUCK)[:, 0]

    def features(self, prompts: np.ndarray, answers: np.ndarray) -> Features:
        """As the decoder would give them, for answers with these numbers to prompts with these."""
        qualities = self.qualities(answers)
        response = qualities @ self.directions
        response += self.window(answers, self.width, NOISE)
        prompt = self.window(prompts, self.width, PROMPT)  # a copy
        prompt += self.topics[0][prompts % TOPICS]
        tokens = np.round(np.exp(5 + 0.5 * qualities[:, 0])).astype(np.int64)
        none = np.zeros(len(answers), np.int64)
        return Features({FEATURE: response}, {FEATURE: prompt}, tokens, none + 20, none.astype(bool), int(tokens.sum()))


@dataclass(frozen=True)
class Made(Sequence[Row]):
    """Rows that are made when they are read; a slice of them, too. `make` makes those of a range."""

    make: Callable[[range], list[Any]]
    numbers: range

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Made: ...
    def __getitem__(self, at: int | slice) -> Row | Made:
        if isinstance(at, slice):
            return Made(self.make, self.numbers[at])
        return self.make(range(self.numbers[at], self.numbers[at] + 1))[0]

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), 4096):
            yield from self.make(self.numbers[start : start + 4096])


def write_store(
    folder: Path,
    source: str,
    rows: int,
    width: int,
    objectives: Objectives,
    patterns: Sequence[Sequence[str]],
    seed: int = 0,
    *,
    shard_rows: int = 1024,
) -> Answers:
    """A store of rated answers, four to a prompt; the rows have the patterns (what they are rated on) one after another."""
    world = World(width, objectives, seed)
    rated = [[(objectives.column(name), name) for name in pattern] for pattern in patterns]
    first = _first(source)

    def make(numbers: range) -> list[Row]:
        given = world.ratings(first + np.arange(numbers.start, numbers.stop)).tolist()
        return [
            _rated(source, first, i, {name: own[column] for column, name in rated[i * len(rated) // rows]})
            for i, own in zip(numbers, given, strict=True)
        ]

    return _write(folder / source, source, world, Made(make, range(rows)), shard_rows)


def write_pairs(
    folder: Path, source: str, rows: int, width: int, objectives: Objectives, seed: int = 0, *, shard_rows: int = 1024
) -> Answers:
    """A store of pairs, one to a prompt."""
    world, first = World(width, objectives, seed), _first(source)

    def make(numbers: range) -> list[Row]:
        prompts = first + np.arange(numbers.start, numbers.stop)
        worth = [world.wins(prompts, first + 2 * (prompts - first) + place) for place in (0, 1)]
        return [_pair(source, first, i, int(second)) for i, second in zip(numbers, worth[1] > worth[0], strict=True)]

    return _write(folder / source, source, world, Made(make, range(rows)), shard_rows)


def _first(source: str) -> int:
    # Another source's prompts and answers have other numbers.
    return zlib.crc32(source.encode())


def _rated(source: str, first: int, i: int, ratings: dict[str, float]) -> RatedResponse:
    prompt = first + i // ANSWERS_PER_PROMPT
    talk = (_asked(prompt), {"role": "assistant", "content": _answer(first + i)})
    return RatedResponse(f"{source}-{i}", f"g{prompt}", source, talk, ratings)


def _pair(source: str, first: int, i: int, best: int) -> PreferencePair:
    chosen, rejected = (_answer(first + 2 * i + place) for place in (best, 1 - best))
    return PreferencePair(f"{source}-{i}", f"g{first + i}", source, (_asked(first + i),), chosen, rejected)


def _asked(prompt: int) -> dict[str, str]:
    return {"role": "user", "content": f"question {prompt}"}


def _answer(answer: int) -> str:
    return f"answer {answer}"


def _write(home: Path, source: str, world: World, rows: Made, shard_rows: int) -> Answers:
    parts = FeatureSpec.parse(FEATURE).parts
    settings = ExtractionSettings(parts, parts, store_dtype="bfloat16", shard_rows=shard_rows)

    def compute(conversations: Sequence[Conversation], _tick: Callable[[int], None]) -> Features:
        prompts, answers = (np.array([int(c[at]["content"].split()[1]) for c in conversations]) for at in (0, -1))
        return world.features(prompts, answers)

    backbone = {"name": "generated", "fingerprint": "generated", "width": world.width}
    return write_answers(home, rows, {"source": source, "backbone": backbone}, settings, compute)
