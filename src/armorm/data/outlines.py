"""What is known of a row without its texts: names, places, ratings, how many answers.

In: a row.  Out: `Outline`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from armorm.data.rows import AnyRow, BenchmarkItem, RatedResponse


@dataclass(frozen=True, slots=True)
class Outline:
    """A row without its texts. `ratings` are a rated response's, `chosen` says how many of the `answers` should win."""

    id: str
    group: str
    source: str
    section: str
    subset: str
    ratings: Mapping[str, float]
    chosen: int
    answers: int


def outline_of(row: AnyRow) -> Outline:
    """A row's outline."""
    if isinstance(row, RatedResponse):
        return Outline(row.id, row.group, row.source, "", "", row.ratings, 0, 1)
    chosen, rejected = row.sizes if isinstance(row, BenchmarkItem) else (1, 1)
    return Outline(row.id, row.group, row.source, row.section, row.subset, {}, chosen, chosen + rejected)
