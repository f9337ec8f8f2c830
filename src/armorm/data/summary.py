"""What the data hold, for the report: sources with their drops, objectives with their ratings, labels by source, splits.

In: `SourceFacts` per source, the objectives, row counts per split.  Out: `DataSummary`, a part of results.json.
Cost: one pass, which reads no texts of stored rows and holds the ratings.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from armorm.data.rows import BenchmarkItem, PreferencePair, RatedResponse
from armorm.data.stored_rows import Kind, outlines
from armorm.objectives import Objective, Objectives
from armorm.results import Number, Result

BINS = 20


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source as it was read.

    `total`: records in the files; `rows`: those used in the end; `drops`: reason → rows left out, faults, caps and excluded
    prompts alike; `notes`: things seen that drop nothing; `truncated`: rows that the token limit shortened.
    """

    name: str
    kind: Kind
    total: int
    rows: Sequence[RatedResponse] | Sequence[PreferencePair] | Sequence[BenchmarkItem]
    drops: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    truncated: int = 0


class SourceSummary(Result):
    """One source as it was read."""

    name: str
    """Its name."""
    kind: str
    """Ratings, pairs or bench."""
    rows: int
    """Records in its files."""
    kept: int
    """Rows that were used."""
    groups: int
    """Prompts among these."""
    drops: Mapping[str, int]
    """By reason, rows that were left out."""
    notes: Mapping[str, int]
    """Things seen that leave no row out."""
    truncated: int
    """Rows that the token limit shortened."""


class Bins(Result):
    """How often values were seen: in bins, or value by value where there are few."""

    edges: tuple[float, ...] = ()
    """The bins' edges, one more than counts."""
    values: tuple[float, ...] = ()
    """The values, one a count."""
    counts: tuple[int, ...]
    """How often each was seen."""


class ObjectiveSummary(Result):
    """One objective and its ratings, on the raw scale."""

    name: str
    """Its name."""
    rater: str
    """Who rated."""
    min: float
    """The scale's lower end."""
    max: float
    """The scale's upper end."""
    n: int
    """Ratings."""
    mean: Number
    """Their mean."""
    histogram: Bins
    """How often each was given."""


class LabelCounts(Result):
    """How many ratings each source brings to each objective."""

    sources: tuple[str, ...]
    """The rated sources."""
    objectives: tuple[str, ...]
    """The objectives."""
    counts: tuple[tuple[int, ...], ...]
    """A row per source, a number per objective."""


class DataSummary(Result):
    """What the data hold."""

    sources: tuple[SourceSummary, ...]
    """Each source as it was read."""
    objectives: tuple[ObjectiveSummary, ...]
    """Each objective and its ratings."""
    labels: LabelCounts
    """Ratings by source and objective."""
    splits: Mapping[str, Mapping[str, int]]
    """By kind of rows, how many are in each split."""


def summarise(sources: Sequence[SourceFacts], objectives: Objectives, splits: Mapping[str, Mapping[str, int]]) -> DataSummary:
    """What the sources hold; ratings are on their raw scales. `splits`: kind of rows → split → rows."""
    values = {o.name: array("d") for o in objectives}
    found, places, counts = list[SourceSummary](), list[str](), list[list[int]]()
    for source in sources:
        before = [len(given) for given in values.values()]
        found.append(_source(source, values))
        if source.kind == "ratings":
            places.append(source.name)
            counts.append([len(given) - n for given, n in zip(values.values(), before, strict=True)])
    labels = LabelCounts.model_validate({"sources": places, "objectives": objectives.names, "counts": counts})
    every = tuple(_objective(o, np.array(values[o.name])) for o in objectives)
    return DataSummary(sources=tuple(found), objectives=every, labels=labels, splits=splits)


def _source(source: SourceFacts, values: Mapping[str, array[float]]) -> SourceSummary:
    # What one source holds; its ratings are added to the objectives' values.
    groups = set[str]()
    for row in outlines(source.rows):
        groups.add(row.group)
        for name in row.ratings.keys() & values.keys():
            values[name].append(row.ratings[name])
    return SourceSummary(
        name=source.name,
        kind=source.kind,
        rows=source.total,
        kept=len(source.rows),
        groups=len(groups),
        drops=source.drops,
        notes=source.notes,
        truncated=source.truncated,
    )


def _objective(objective: Objective, ratings: Float[np.ndarray, " n"]) -> ObjectiveSummary:
    counts, edges = np.histogram(ratings, bins=BINS, range=(objective.min, objective.max))
    return ObjectiveSummary(
        name=objective.name,
        rater=objective.rater,
        min=objective.min,
        max=objective.max,
        n=len(ratings),
        mean=float(np.mean(ratings)) if len(ratings) else math.nan,
        histogram=Bins(edges=tuple(edges.tolist()), counts=tuple(counts.tolist())),
    )
