"""What a steering profile costs and brings on a benchmark, section by section.

In: the `Outcomes` of one model without and with the profile, the benchmark's `Aggregate`s.  Out: rows of JSON facts.
Cost: one bootstrap and one permutation test per section.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from armorm.bench.aggregate import figures, paired
from armorm.bench.outcomes import Outcomes
from armorm.data.benchmarks.benchmark import Aggregate


def profile_comparison(base: Outcomes, steered: Outcomes, aggregates: Sequence[Aggregate], *, seed: int) -> list[dict[str, Any]]:
    """Overall and every section of each aggregate: both values, and the paired difference (steered − base) with interval and p.

    `gained` and `lost` count the cells (mostly items) that the profile judges better and worse. Raises DataError when the two are
    not outcomes of the same items.
    """
    before, after = figures(base, aggregates, seed=seed), figures(steered, aggregates, seed=seed)
    rows = []
    for aggregate in aggregates:
        one, other = before.aggregates[aggregate.name], after.aggregates[aggregate.name]
        for name, part in _parts(aggregate):
            old, new = (a.overall if name is None else a.sections.get(name) for a in (one, other))
            if old is None or new is None:
                continue
            found = paired(steered, base, part, seed=seed)
            rows.append(
                {
                    "aggregate": aggregate.name,
                    "level": "overall" if name is None else "section",
                    "name": name or "overall",
                    "base": old.to_json(),
                    "steered": new.to_json(),
                    **found.to_json(),
                    **_moved(base, steered, part),
                }
            )
    return rows


def _parts(aggregate: Aggregate) -> Iterator[tuple[str | None, Aggregate]]:
    yield None, aggregate
    for section in aggregate.sections:
        yield section.name, replace(aggregate, sections=(section,), weights={section.name: 1.0})


def _moved(base: Outcomes, steered: Outcomes, part: Aggregate) -> dict[str, int]:
    listed = {subset for section in part.sections for subset in section.subsets}
    here = base.scored & steered.scored & np.array([subset in listed for subset in base.subset], dtype=bool)
    gaps = steered.credit[here] - base.credit[here]
    return {"gained": int((gaps > 0).sum()), "lost": int((gaps < 0).sum())}
