"""What a set of rows holds: counts, ratings, missing labels, lengths, how ratings follow length, repeats, leakage.

In: an opened source, and the `PromptIndex`es of benchmarks.  Out: `Inspection`.
Cost: one pass. No text is held, only numbers: about 8 bytes a row for each objective and 36 more, and about 100 bytes for each
different prompt and answer; a million rows with ten objectives take about 350 MB. Intervals take some seconds more.

Lengths count words (what white space separates) and characters; "longer" and the correlations go by characters, which also mean
something in code and in scripts without spaces. A prompt is everything before the answer; leakage is about its first user turn.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from armorm.conversation import Answer, Message, split_answer, text_of
from armorm.data.inspection import Inspection
from armorm.data.leakage import Match, PromptIndex, excerpt, first_prompt, sketch
from armorm.data.opening import Opened
from armorm.data.rows import PreferencePair, RatedResponse
from armorm.data.splits import computed_group
from armorm.draws import code_of
from armorm.intervals import Interval, bootstrap_by_group
from armorm.objectives import Objective, Objectives

FORMAT = 1
BINS = 20
MOST_VALUES = 21
"""Ratings with no more values than this are counted value by value, others in bins."""
PATTERNS = 8
LISTED = 8
TRACKED = 5_000
"""Of how many repeated answers the beginning is kept until the most frequent are known."""
RESAMPLES, FEWER_RESAMPLES, MANY_PROMPTS = 1000, 200, 20_000
SIDES = {"ratings": ("answer",), "pairs": ("chosen", "rejected")}


def inspect(opened: Opened, against: Sequence[PromptIndex] = (), *, seed: int = 0) -> Inspection:
    """Read the whole source and say what it holds."""
    seen = _Seen.of(opened, against)
    for row in opened.stream:
        seen.met(row)
    faults, kept = opened.stream.faults, len(seen.prompt_of)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "name": opened.name,
        "title": opened.title,
        "kind": opened.kind,
        "where": opened.where,
        "published": opened.published or None,
        "remarks": list(opened.remarks),
        "counts": {
            "records": opened.stream.total,
            "rows": kept,
            "prompts": len(seen.prompts),
            **faults.to_json(),
            "examples": list(faults.examples),
        },
        "rows_per_prompt": _rows_per_prompt(seen.prompt_of),
        "lengths": {name: one.facts() for name, one in seen.lengths.items()} | {"turns": _distribution(seen.turns)},
        "duplicates": seen.answers.facts(),
        "leakage": [one.facts() for one in seen.leaks],
    }
    if opened.kind == "ratings":
        facts["objectives"] = _objectives(opened.objectives, seen, seed)
        facts["patterns"] = _patterns(opened.objectives, seen.patterns)
    else:
        facts["longer_chosen"] = _longer_chosen(seen, seed)
        facts["subsets"] = dict(seen.subsets.most_common(50))
    return Inspection.model_validate(facts)


def digest(text: str) -> int:
    """A text as a number of 64 bits."""
    return code_of(text.encode("utf-8", "surrogatepass"))


@dataclass
class _Lengths:
    words: array[int] = field(default_factory=lambda: array("I"))
    characters: array[int] = field(default_factory=lambda: array("I"))

    def met(self, texts: Iterable[str]) -> None:
        words = characters = 0
        for text in texts:
            words, characters = words + len(text.split()), characters + len(text)
        self.words.append(words)
        self.characters.append(characters)

    def facts(self) -> dict[str, Any]:
        return {"words": _distribution(self.words), "characters": _distribution(self.characters)}


@dataclass
class _Answers:
    """How often each answer was given; the beginnings of those that were given twice."""

    times: dict[int, int] = field(default_factory=dict)
    total: int = 0
    beginnings: dict[int, str] = field(default_factory=dict)

    def met(self, text: str) -> None:
        self.total += 1
        key = digest(text.strip())
        times = self.times[key] = self.times.get(key, 0) + 1
        if times == 2 and len(self.beginnings) < TRACKED:
            self.beginnings[key] = excerpt(text)

    def facts(self) -> dict[str, Any]:
        most = sorted(self.beginnings.items(), key=lambda b: (-self.times[b[0]], b[1]))[:LISTED]
        return {
            "answers": self.total,
            "distinct": len(self.times),
            "repeated": self.total - len(self.times),
            "most": [{"times": self.times[key], "answer": text} for key, text in most],
        }


@dataclass
class _Leak:
    """What one benchmark shares with the rows: prompts and rows, exact and near, with a few examples."""

    index: PromptIndex
    prompts: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    kinds: dict[int, str] = field(default_factory=dict)
    examples: list[tuple[Match, str]] = field(default_factory=list)

    def met(self, prompt: int, match: Match | None, text: str) -> None:
        """A prompt that is new."""
        if match is None:
            return
        kind = self.kinds[prompt] = "exact" if match.exact else "near"
        self.prompts[kind] += 1
        if self.prompts[kind] <= LISTED:
            self.examples.append((match, excerpt(text)))

    def again(self, prompt: int) -> None:
        """A row of a prompt, the first included."""
        if (kind := self.kinds.get(prompt)) is not None:
            self.rows[kind] += 1

    def facts(self) -> dict[str, Any]:
        return {
            "benchmark": self.index.benchmark,
            "prompts": len(self.index),
            "threshold": self.index.threshold,
            **{kind: {"prompts": self.prompts[kind], "rows": self.rows[kind]} for kind in ("exact", "near")},
            "examples": [
                {"prompt": text, "benchmark_prompt": m.prompt, "item": m.id, "similarity": m.similarity, "exact": m.exact}
                for m, text in sorted(self.examples, key=lambda e: -e[0].similarity)
            ],
        }


@dataclass
class _Seen:
    objectives: Objectives
    lengths: dict[str, _Lengths]
    leaks: list[_Leak]
    ratings: list[array[float]]
    prompts: dict[int, int] = field(default_factory=dict)
    prompt_of: array[int] = field(default_factory=lambda: array("I"))
    turns: array[int] = field(default_factory=lambda: array("I"))
    answers: _Answers = field(default_factory=_Answers)
    patterns: Counter[int] = field(default_factory=Counter)
    subsets: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, opened: Opened, against: Sequence[PromptIndex]) -> _Seen:
        lengths = {name: _Lengths() for name in ("prompt", *SIDES[opened.kind])}
        return cls(opened.objectives, lengths, [_Leak(i) for i in against], [array("d") for _ in opened.objectives])

    def met(self, row: RatedResponse | PreferencePair) -> None:
        sides: tuple[Answer, ...]
        if isinstance(row, RatedResponse):
            context, answer = split_answer(row.messages)
            sides = (answer,)
            self._rated(row.ratings)
        else:
            context, sides = row.context, (row.chosen, row.rejected)
            if row.section or row.subset:
                self.subsets["/".join(part for part in (row.section, row.subset) if part)] += 1
        prompt, *answers = self.lengths.values()
        prompt.met(m["content"] for m in context)
        for side, text in zip(answers, map(text_of, sides), strict=True):
            side.met([text])
            self.answers.met(text)
        self.turns.append(sum(m["role"] == "user" for m in context))
        self._grouped(row, context)

    def _rated(self, ratings: Mapping[str, float]) -> None:
        pattern = 0
        for i, objective in enumerate(self.objectives):
            value = ratings.get(objective.name, math.nan)
            self.ratings[i].append(value)
            pattern |= (objective.name in ratings) << i
        self.patterns[pattern] += 1

    def _grouped(self, row: RatedResponse | PreferencePair, context: Sequence[Message]) -> None:
        key = digest(row.group if row.group.startswith("g") else computed_group(row))
        known = len(self.prompts)
        place = self.prompts.setdefault(key, known)
        self.prompt_of.append(place)
        if self.leaks and place == known:
            text = first_prompt(context)
            sketched = sketch(text)
            for leak in self.leaks:
                leak.met(place, leak.index.query(sketched), text)
        for leak in self.leaks:
            leak.again(place)


def _distribution(values: Sequence[int]) -> dict[str, Any] | None:
    if not len(values):
        return None
    numbers = np.asarray(values, dtype=np.float64)
    low, q1, median, q3, high = np.quantile(numbers, [0.05, 0.25, 0.5, 0.75, 0.95])
    least, most = float(numbers.min()), float(numbers.max())
    if most > BINS:
        edges = np.geomspace(max(least, 1.0), most + 1, BINS + 1)
        edges[-1] = most + 1  # rounding must not leave the longest out
    else:
        edges = np.arange(least, most + 2) - 0.5
    counts, _ = np.histogram(np.maximum(numbers, edges[0]), bins=edges)
    return {
        "mean": float(numbers.mean()),
        "min": least,
        "p5": float(low),
        "p25": float(q1),
        "median": float(median),
        "p75": float(q3),
        "p95": float(high),
        "max": most,
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _rows_per_prompt(prompt_of: Sequence[int]) -> dict[str, Any] | None:
    if not len(prompt_of):
        return None
    sizes = np.bincount(np.asarray(prompt_of, dtype=np.int64))
    return _distribution(sizes.tolist()) | {"one": int((sizes == 1).sum())}  # type: ignore[operator]


def _objectives(objectives: Objectives, seen: _Seen, seed: int) -> list[dict[str, Any]]:
    length = np.asarray(seen.lengths["answer"].characters, dtype=np.float64)
    prompt_of = np.asarray(seen.prompt_of, dtype=np.int64)
    return [
        _objective(o, np.asarray(values, dtype=np.float64), length, prompt_of, seed)
        for o, values in zip(objectives, seen.ratings, strict=True)
    ]


def _objective(
    objective: Objective,
    values: Float[np.ndarray, " n"],
    length: Float[np.ndarray, " n"],
    prompt_of: Int[np.ndarray, " n"],
    seed: int,
) -> dict[str, Any]:
    there = ~np.isnan(values)
    rated = values[there]
    pearson, spearman = correlations(rated, length[there], prompt_of[there], seed=seed)
    return {
        "name": objective.name,
        "rater": objective.rater,
        "direction": objective.direction.value,
        "min": objective.min,
        "max": objective.max,
        "n": len(rated),
        "share": len(rated) / len(values) if len(values) else None,
        "mean": float((rated / len(rated)).sum()) if len(rated) else None,  # in this order no scale overflows
        "histogram": _rating_histogram(rated, objective),
        "length": {"n": len(rated), "pearson": pearson, "spearman": spearman},
    }


def _rating_histogram(rated: Float[np.ndarray, " n"], objective: Objective) -> dict[str, Any]:
    values, counts = np.unique(rated, return_counts=True)
    if len(values) <= MOST_VALUES:
        return {"values": values.tolist(), "counts": counts.tolist()}
    # In halves, so that the widest scale a float can hold has a width.
    place = (rated / 2 - objective.min / 2) / (objective.max / 2 - objective.min / 2)
    binned = np.bincount(np.clip((place * BINS).astype(np.int64), 0, BINS - 1), minlength=BINS)
    edges = [objective.min * (1 - i / BINS) + objective.max * (i / BINS) for i in range(BINS + 1)]
    return {"edges": edges, "counts": binned.tolist()}


def _patterns(objectives: Objectives, patterns: Counter[int]) -> dict[str, Any]:
    rows = patterns.total()
    listed = [
        {"objectives": [o.name for i, o in enumerate(objectives) if pattern >> i & 1], "rows": n, "share": n / rows}
        for pattern, n in patterns.most_common(PATTERNS)
    ]
    return {"different": len(patterns), "most": listed}


def correlations(
    values: Float[np.ndarray, " n"], length: Float[np.ndarray, " n"], prompt_of: Int[np.ndarray, " n"], *, seed: int
) -> tuple[Interval, Interval]:
    """Pearson's and Spearman's correlation with their 95 % intervals by prompt (ranks are those of all rows).

    Sums by prompt are resampled instead of rows, so a million rows cost what their prompts cost.
    """
    if len(values) < 3:
        return Interval.undefined(), Interval.undefined()
    pairs = [(values, length), (rankdata(values), rankdata(length))]
    parts = [part for x, y in pairs for part in _moments(_standard(x), _standard(y))]
    places, group = np.unique(prompt_of, return_inverse=True)
    sums = np.stack([np.bincount(group, weights=part, minlength=len(places)) for part in parts], axis=1)

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights @ sums
        return np.stack([_correlation(total[:, :6]), _correlation(total[:, 6:])], axis=1)

    pearson, spearman = _by_prompt(statistic, len(places), seed)
    return pearson, spearman


def _moments(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[np.ndarray, ...]:
    return np.ones(len(x)), x, y, x * x, y * y, x * y


def _standard(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    # Any linear change leaves a correlation alone; this one keeps the sums of squares exact.
    scaled = x / max(float(np.abs(x).max()), 1e-300)
    centred = scaled - scaled.mean()
    width = float(np.abs(centred).max())
    return centred / width if width > 1e-12 else np.zeros(len(x))


def _correlation(total: Float[np.ndarray, "r 6"]) -> Float[np.ndarray, " r"]:
    n, x, y, xx, yy, xy = total.T
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = (xx - x * x / n) * (yy - y * y / n)
        return np.where(spread > 1e-18 * n * n, (xy - x * y / n) / np.sqrt(np.maximum(spread, 0)), np.nan)


def _by_prompt(statistic: Any, prompts: int, seed: int) -> tuple[Interval, ...]:
    resamples = RESAMPLES if prompts <= MANY_PROMPTS else FEWER_RESAMPLES
    return bootstrap_by_group(statistic, [str(i) for i in range(prompts)], seed=seed, resamples=resamples)


def _longer_chosen(seen: _Seen, seed: int) -> dict[str, Any]:
    """In which share of pairs of unequal length the longer answer was chosen."""
    found: dict[str, Any] = {}
    for measure in ("characters", "words"):
        chosen, rejected = (np.asarray(getattr(seen.lengths[s], measure), dtype=np.int64) for s in SIDES["pairs"])
        unequal, longer = chosen != rejected, chosen > rejected
        interval = _share(longer, unequal, np.asarray(seen.prompt_of, dtype=np.int64), seed)
        found[measure] = interval.to_json() | {"n": int(unequal.sum()), "equal": int((~unequal).sum())}
    return found


def _share(yes: np.ndarray, counted: np.ndarray, prompt_of: Int[np.ndarray, " n"], seed: int) -> Interval:
    if not counted.any():
        return Interval.undefined()
    sums = np.stack([np.bincount(prompt_of, weights=part) for part in (yes & counted, counted)], axis=1)

    def statistic(weights: np.ndarray) -> np.ndarray:
        some, all_ = (weights @ sums).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return (some / all_)[:, None]

    return _by_prompt(statistic, len(sums), seed)[0]
