"""A user's rows, checked one by one: every fault with its place and remedy.

In: an opened source.  Out: `Validation`.  Cost: one pass; nothing of a row is kept but a digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from armorm.data.opening import Opened
from armorm.data.reading import FaultCounts
from armorm.data.rows import RatedResponse


@dataclass(frozen=True)
class Validation:
    """What was found: `total` records, `kept` of them rows; `rated`: objective → rows that carry it, in the objectives' order."""

    name: str
    where: str
    kind: str
    total: int
    kept: int
    groups: int
    faults: FaultCounts
    rated: Mapping[str, int]
    remarks: tuple[str, ...]

    @property
    def faulty(self) -> int:
        return sum(self.faults.counts.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.name,
            "where": self.where,
            "kind": self.kind,
            "records": self.total,
            "rows": self.kept,
            "prompts": self.groups,
            "faulty": self.faulty,
            **self.faults.to_json(),
            "rated": dict(self.rated),
            "remarks": list(self.remarks),
        }


def validate(opened: Opened) -> Validation:
    """Read the whole source; its faults go to the `on_fault_line` that it was opened with."""
    rated: Counter[str] = Counter()
    groups: set[str] = set()
    kept = 0
    for row in opened.stream:
        kept += 1
        groups.add(row.group)
        if isinstance(row, RatedResponse):
            rated.update(row.ratings.keys())
    faults = opened.stream.faults
    per_objective = {o.name: rated[o.name] for o in opened.objectives}
    unrated = [name for name, n in per_objective.items() if not n]
    remarks = (*opened.remarks, *([f"no row rates {', '.join(unrated)}"] if unrated and kept else []))
    where = opened.where or opened.title
    return Validation(opened.name, where, opened.kind, opened.stream.total, kept, len(groups), faults, per_objective, remarks)
