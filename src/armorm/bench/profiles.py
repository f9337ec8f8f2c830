"""What a steering profile costs and brings on a benchmark, section by section.

In: the `Outcomes` of one model without and with the profile, the benchmark's `Aggregate`s.  Out: `ProfileRow`s.
Cost: one bootstrap and one permutation test per section.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from armorm.bench.aggregate import Figure, figures, paired
from armorm.bench.metrics import PairedDifference
from armorm.bench.outcomes import Outcomes
from armorm.data.benchmarks.benchmark import Aggregate


class ProfileRow(PairedDifference):
    """What a profile does to one figure; the difference is steered − base."""

    aggregate: str
    """The aggregate."""
    level: Literal["overall", "section"]
    """Whether it is the whole or a section."""
    name: str
    """The section, or "overall"."""
    base: Figure
    """Without the profile."""
    steered: Figure
    """With it."""
    gained: int
    """Cells (mostly items) that the profile judges better."""
    lost: int
    """Cells that it judges worse."""


def profile_comparison(base: Outcomes, steered: Outcomes, aggregates: Sequence[Aggregate], *, seed: int) -> list[ProfileRow]:
    """Overall and every section of each aggregate. Raises DataError when the two are not outcomes of the same items."""
    before, after = figures(base, aggregates, seed=seed), figures(steered, aggregates, seed=seed)
    rows = []
    for aggregate in aggregates:
        one, other = before.aggregates[aggregate.name], after.aggregates[aggregate.name]
        for name, part in _parts(aggregate):
            old, new = (a.overall if name is None else a.sections.get(name) for a in (one, other))
            if old is None or new is None:
                continue
            gap = paired(steered, base, part, seed=seed)
            gained, lost = _moved(base, steered, part)
            rows.append(
                ProfileRow(
                    aggregate=aggregate.name,
                    level="overall" if name is None else "section",
                    name=name or "overall",
                    base=old,
                    steered=new,
                    difference=gap.difference,
                    p=gap.p,
                    gained=gained,
                    lost=lost,
                )
            )
    return rows


def _parts(aggregate: Aggregate) -> Iterator[tuple[str | None, Aggregate]]:
    yield None, aggregate
    for section in aggregate.sections:
        yield section.name, replace(aggregate, sections=(section,), weights={section.name: 1.0})


def _moved(base: Outcomes, steered: Outcomes, part: Aggregate) -> tuple[int, int]:
    listed = {subset for section in part.sections for subset in section.subsets}
    here = base.scored & steered.scored & np.array([subset in listed for subset in base.subset], dtype=bool)
    gaps = steered.credit[here] - base.credit[here]
    return int((gaps > 0).sum()), int((gaps < 0).sum())
