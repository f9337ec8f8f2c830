"""What the data hold, for the report: sources with their drops, objectives with their ratings, labels by source, splits.

In: `SourceFacts` per source, the objectives, row counts per split.  Out: the `data` part of results.json.  Cost: one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from armorm.data.rows import BenchmarkItem, PreferencePair, RatedResponse
from armorm.objectives import Objective, Objectives

BINS = 20


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source as it was read.

    `total`: records in the files; `rows`: those used in the end; `drops`: reason → rows left out, faults, caps and excluded
    prompts alike; `notes`: things seen that drop nothing; `truncated`: rows that the token limit shortened.
    """

    name: str
    kind: Literal["ratings", "pairs", "bench"]
    total: int
    rows: Sequence[RatedResponse] | Sequence[PreferencePair] | Sequence[BenchmarkItem]
    drops: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    truncated: int = 0


def summarise(sources: Sequence[SourceFacts], objectives: Objectives, splits: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Plain JSON values; ratings are on their raw scales. An objective without ratings has the mean None.

    `splits`: kind of rows → split → rows.
    """
    rated = [(s.name, [r for r in s.rows if isinstance(r, RatedResponse)]) for s in sources if s.kind == "ratings"]
    values = {o.name: [r.ratings[o.name] for _, rows in rated for r in rows if o.name in r.ratings] for o in objectives}
    counts = [[sum(o.name in r.ratings for r in rows) for o in objectives] for _, rows in rated]
    return {
        "sources": [_source(s) for s in sources],
        "objectives": [_objective(o, values[o.name]) for o in objectives],
        "labels": {"sources": [name for name, _ in rated], "objectives": list(objectives.names), "counts": counts},
        "splits": {kind: dict(rows) for kind, rows in splits.items()},
    }


def _source(source: SourceFacts) -> dict[str, Any]:
    return {
        "name": source.name,
        "kind": source.kind,
        "rows": source.total,
        "kept": len(source.rows),
        "groups": len({r.group for r in source.rows}),
        "drops": dict(source.drops),
        "notes": dict(source.notes),
        "truncated": source.truncated,
    }


def _objective(objective: Objective, ratings: list[float]) -> dict[str, Any]:
    counts, edges = np.histogram(ratings, bins=BINS, range=(objective.min, objective.max))
    return {
        "name": objective.name,
        "rater": objective.rater,
        "min": objective.min,
        "max": objective.max,
        "n": len(ratings),
        "mean": float(np.mean(ratings)) if ratings else None,
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }
