"""What a benchmark is: where its files are, how its records become items, and how its subsets make sections and a score.

In: nothing (these are types).  Out: `Benchmark` and its parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from armorm.data.sources.source import Confidence, Place, Unfold


class Rule(StrEnum):
    """How an item's scores become credit in [0, 1]. Ties count as the official script has them, and as halves beside that.

    `pairs`: 1 if the chosen answer scores above the rejected one. `preferences`: the same, but a tie is a half: for pairs without
    an official script. `best-of`: the chosen answer has the highest score of all,
    shared among those that tie with it. `beats-all`: it scores above every loser. `style-matrix`: every chosen style against
    every rejected one (RM-Bench). `rewardbench-2`: best-of, and the ties subset's own score.
    """

    PAIRS = "pairs"
    PREFERENCES = "preferences"
    BEST_OF = "best-of"
    BEATS_ALL = "beats-all"
    STYLE_MATRIX = "style-matrix"
    REWARDBENCH_2 = "rewardbench-2"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A mean over subsets: `subsets` maps each to its weight (RewardBench: its published number of prompts).

    `by_items`: the mean over the items that were scored, whichever subset they stand in; the weights then serve published
    numbers only, which come without their items.
    """

    name: str
    subsets: Mapping[str, float]
    by_items: bool = False


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """From subsets to one number: the weighted mean of sections; without `weights`, the mean over items.

    Sections and subsets that were not scored are left out of the means, and named in the result.
    """

    name: str
    sections: tuple[Section, ...]
    weights: Mapping[str, float] | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class FileSet:
    """One set of files of a benchmark."""

    place: Place
    unfold: Unfold


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark: data plus one scoring rule.

    `subsets`: name → published number of items (0: not known). `aggregates`: the official one first, then named variants of
    it. `items`: the published number of all items where those of the subsets are not known.
    """

    name: str
    title: str
    parts: tuple[FileSet, ...]
    licence: str
    rule: Rule
    subsets: Mapping[str, int]
    aggregates: tuple[Aggregate, ...]
    url: str = ""
    confidence: Confidence = "read"
    items: int = 0

    @property
    def rows(self) -> int:
        """Items as published; 0 where that is not known."""
        return self.items or sum(self.subsets.values())
