"""What is found in a set of rows: the types of `data.inspect`'s facts.

In: counts and numbers.  Out: `Inspection`.
"""

from __future__ import annotations

from collections.abc import Mapping

from armorm.data.summary import Bins, ObjectiveSummary
from armorm.results import Estimate, Number, Result, Share


class Distribution(Result):
    """Whole numbers, such as lengths."""

    mean: float
    """Their mean."""
    min: float
    """The least."""
    p5: float
    """The 5 % quantile."""
    p25: float
    """The 25 % quantile."""
    median: float
    """The median."""
    p75: float
    """The 75 % quantile."""
    p95: float
    """The 95 % quantile."""
    max: float
    """The largest."""
    histogram: Bins
    """How often each was seen."""


class RowsPerPrompt(Distribution):
    """How many rows a prompt has."""

    one: int
    """Prompts with one row only."""


class Counts(Result):
    """Records, and what became of them."""

    records: int
    """Records that were read."""
    rows: int
    """Rows that they became."""
    prompts: int
    """The rows' prompts."""
    faults: Mapping[str, int]
    """By kind, records that can't be used."""
    skipped: Mapping[str, int]
    """By reason, records that are left out on purpose."""
    notes: Mapping[str, int]
    """Things seen in rows that may have been kept."""
    examples: tuple[str, ...]
    """The first faults, with place and remedy."""


class Lengths(Result):
    """Lengths of texts; null where there is none."""

    words: Distribution | None
    """In words."""
    characters: Distribution | None
    """In characters."""


class AllLengths(Result):
    """Lengths of prompts and answers."""

    prompt: Lengths
    """Everything before the answer."""
    answer: Lengths | None = None
    """The rated answer; for ratings only."""
    chosen: Lengths | None = None
    """The chosen answer; for pairs only."""
    rejected: Lengths | None = None
    """The rejected answer; for pairs only."""
    turns: Distribution | None
    """Questions in a conversation."""

    def sides(self) -> dict[str, Lengths]:
        """Those that these rows have, by name."""
        every = {"prompt": self.prompt, "answer": self.answer, "chosen": self.chosen, "rejected": self.rejected}
        return {name: one for name, one in every.items() if one is not None}


class Repeated(Result):
    """An answer that was given more than once."""

    times: int
    """How often."""
    answer: str
    """Its beginning."""


class Duplicates(Result):
    """Answers that are the same letter by letter."""

    answers: int
    """All answers."""
    distinct: int
    """Different ones."""
    repeated: int
    """Answers that were there before."""
    most: tuple[Repeated, ...]
    """Those that were given most often."""


class Shared(Result):
    """What rows and a benchmark share."""

    prompts: int
    """Prompts."""
    rows: int
    """Their rows."""


class LeakExample(Result):
    """A prompt that is also in a benchmark."""

    prompt: str
    """The rows' prompt."""
    benchmark_prompt: str
    """The benchmark's."""
    item: str
    """The benchmark's item."""
    similarity: float
    """Their similarity, from 0 to 1."""
    exact: bool
    """Whether they are the same."""


class Leak(Result):
    """Prompts that are also in a benchmark."""

    benchmark: str
    """Its name."""
    prompts: int
    """Its prompts."""
    threshold: float
    """The similarity from which prompts are near-duplicates."""
    exact: Shared
    """The same prompts."""
    near: Shared
    """Nearly the same."""
    examples: tuple[LeakExample, ...]
    """The first of either kind."""


class LengthFollowed(Result):
    """How far ratings follow the answer's length in characters."""

    n: int
    """Ratings."""
    pearson: Estimate
    """Pearson's correlation."""
    spearman: Estimate
    """Spearman's correlation."""


class RatedObjective(ObjectiveSummary):
    """One objective and its ratings, on the raw scale, and how they follow length."""

    direction: str
    """Which end of the scale is good."""
    share: Number
    """The share of rows that carry one."""
    length: LengthFollowed
    """How far they follow the answer's length."""


class Pattern(Result):
    """Objectives that are rated together."""

    objectives: tuple[str, ...]
    """Their names."""
    rows: int
    """Rows that carry these and no others."""
    share: float
    """Their share of all rows."""


class Patterns(Result):
    """Which objectives are rated together."""

    different: int
    """How many patterns there are."""
    most: tuple[Pattern, ...]
    """The most frequent ones."""


class LongerChosen(Share):
    """In which share of pairs of unequal length the longer answer was chosen."""

    n: int
    """Pairs of unequal length."""
    equal: int
    """Pairs of equal length."""


class Inspection(Result):
    """Everything that was found in a set of rows."""

    format: int
    """The number of the file's format."""
    name: str
    """The source."""
    title: str
    """Its name for people."""
    kind: str
    """Ratings or pairs."""
    where: str
    """Its files."""
    published: int | None
    """How many records it has as published; null where that is not known."""
    remarks: tuple[str, ...]
    """What to know of the source."""
    counts: Counts
    """Records, and what became of them."""
    rows_per_prompt: RowsPerPrompt | None
    """How many rows a prompt has; null without a row."""
    lengths: AllLengths
    """Lengths of prompts and answers."""
    duplicates: Duplicates
    """Answers that are the same."""
    leakage: tuple[Leak, ...]
    """Prompts that are also in benchmarks."""
    objectives: tuple[RatedObjective, ...] = ()
    """For ratings: each objective."""
    patterns: Patterns | None = None
    """For ratings: which objectives are rated together."""
    longer_chosen: Mapping[str, LongerChosen] | None = None
    """For pairs, by measure: whether the longer answer was chosen."""
    subsets: Mapping[str, int] | None = None
    """For pairs: the largest subsets."""
