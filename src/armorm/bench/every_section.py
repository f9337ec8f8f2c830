"""All sections of all suites, each counting alike: a method's mean over them, its worst place, its distance from Bradley–Terry.

In: outcomes of every method on every suite, and the suites' aggregates.  Out: `AllSections`.
Cost: 2,000 draws over the prompts, a hundred in memory at a time.

The mean over pairs is mostly that of the largest set, and says little of how a method does where it has never been. Intervals
draw prompts: each gets a weight from an exponential distribution (the Bayesian bootstrap), the same one wherever the prompt
stands, so that one in several sections moves all of them, and no section is ever without a prompt. A section is the mean over
its drawn prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from armorm.bench.aggregate import SectionSums
from armorm.bench.metrics import RESAMPLES
from armorm.bench.outcomes import Outcomes
from armorm.data.benchmarks.benchmark import Aggregate
from armorm.intervals import Interval, interval_of
from armorm.results import Estimate, Number, Result, Share

AT_ONCE = 100
"""Draws that are in memory."""


class OverSections(Result):
    """One method over all sections."""

    method: str
    """Its name."""
    label: str
    """Its name for people."""
    mean: Share
    """The mean over the sections, each counting alike."""
    behind: Number
    """How far it is behind the best method of a section, where it is furthest."""
    worst: str
    """The section where it is."""
    versus_bradley_terry: Estimate | None
    """Its mean minus Bradley–Terry's; null for itself."""


class AllSections(Result):
    """Every method over all sections of all suites."""

    sections: tuple[str, ...]
    """The sections that every method has a value on, by suite."""
    methods: tuple[OverSections, ...]
    """The method of the run first, then its ablations and rivals."""


@dataclass(frozen=True)
class Outcome:
    """Methods' outcomes on one suite, by the methods' names, and its official aggregate."""

    suite: str
    by_method: Mapping[str, Outcomes]
    aggregate: Aggregate


def all_sections(suites: Sequence[Outcome], labels: Mapping[str, str], *, rival: str, seed: int) -> AllSections | None:
    """Every method of `labels` over the sections of all suites; `rival` is the one that the others are set against.

    None where there is no section that every method has a value on.
    """
    sums = [{method: SectionSums.of(one.by_method[method], one.aggregate) for method in labels} for one in suites]
    place = {name: i for i, name in enumerate(sorted({g for by in sums for one in by.values() for g in one.groups}))}
    place_of = {one.groups: [place[group] for group in one.groups] for by in sums for one in by.values()}
    names = [f"{one.suite}: {section.name}" for one in suites for section in one.aggregate.sections]

    def drawn(weights: Float[np.ndarray, "b g"]) -> Float[np.ndarray, "b m s"]:
        found = np.full((len(weights), len(labels), len(names)), np.nan)
        for one, by_method in zip(suites, sums, strict=True):
            for i, own in enumerate(by_method.values()):
                columns = [names.index(f"{one.suite}: {section}") for section in own.sections]
                found[:, i, columns] = own.values(weights[:, place_of[own.groups]])
        return found

    draw, pieces = np.random.default_rng(seed), [drawn(np.ones((1, len(place))))]
    for _ in range(0, RESAMPLES if len(place) > 1 else 0, AT_ONCE):
        pieces.append(drawn(draw.standard_exponential((AT_ONCE, len(place)))))
    values = np.concatenate(pieces)  # [1 + draws, methods, sections]; the first is the sections as they are
    kept = np.isfinite(values).all(axis=(0, 1))
    if not kept.any():
        return None
    sections, values = [name for name, known in zip(names, kept, strict=True) if known], values[:, :, kept]
    means, behind = values.mean(axis=2), values[0].max(axis=0) - values[0]
    against = list(labels).index(rival) if rival in labels else None
    rows = []
    for i, (method, label) in enumerate(labels.items()):
        worst = int(np.argmax(behind[i]))
        found = {"mean": _estimate(means[:, i]), "behind": float(behind[i, worst]), "worst": sections[worst]}
        versus = None if against in (None, i) else _estimate(means[:, i] - means[:, against])
        rows.append({"method": method, "label": label, **found, "versus_bradley_terry": versus})
    return AllSections.model_validate({"sections": sections, "methods": rows})


def _estimate(values: Float[np.ndarray, " b"]) -> Interval:
    # Of the number as it is, and its draws
    return interval_of(float(values[0]), values[1:])
