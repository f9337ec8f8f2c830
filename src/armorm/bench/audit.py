"""An audit's numbers: how far scores move under a change of the answers, and what in them moves.

In: scores and their parts before and after, per change and view.  Out: an audit's types, with 95 % intervals by prompt.
Cost: one bootstrap per change and view.

A shift is measured in standard deviations of the view's scores over the file's answers, so that views on different scales stand
side by side: 1 is about the distance between a middling and a good answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from armorm.bench.audit_results import ChangeFacts, Example, Shift, Verdict, ViewFacts
from armorm.bench.metrics import length_correlation
from armorm.bench.perturbations import Expected, Perturbation
from armorm.intervals import Interval, bootstrap_by_group

RESAMPLES = 1000


@dataclass(frozen=True)
class Viewed:
    """One view's scores [n], and what they are made of: `parts` [n k] by name, which may be empty."""

    scores: Float[np.ndarray, " n"]
    parts: Float[np.ndarray, "n k"]


@dataclass(frozen=True)
class View:
    """A way to score: name, label, and the names of the parts that its score is the sum of (none for a score without parts)."""

    name: str
    label: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Changed:
    """A change: the answers that it applies to (places among the originals), what they score after it, and where it pays most."""

    perturbation: Perturbation
    places: Int[np.ndarray, " q"]
    views: Mapping[str, Viewed]
    rewards: Float[np.ndarray, "q k"]
    example: Example


@dataclass(frozen=True)
class Originals:
    """The answers as they are: prompt groups, lengths in tokens, per view their scores, and their rewards before debiasing."""

    groups: Sequence[str]
    lengths: Float[np.ndarray, " n"]
    views: Mapping[str, Viewed]
    rewards: Float[np.ndarray, "n k"]
    objectives: tuple[str, ...]


def view_facts(view: View, originals: Originals, *, seed: int) -> ViewFacts:
    """A view's scores of the unchanged answers."""
    scores = originals.views[view.name].scores
    return ViewFacts(
        name=view.name,
        label=view.label,
        score_mean=float(np.nanmean(scores)),
        score_std=_spread(scores),
        length=length_correlation(scores, originals.lengths, list(originals.groups), seed=seed),
    )


def change_facts(change: Changed, views: Sequence[View], originals: Originals, *, seed: int) -> ChangeFacts:
    """What a change does, in every view."""
    p = change.perturbation
    groups = [originals.groups[i] for i in change.places]
    return ChangeFacts(
        name=p.name,
        label=p.label,
        expected=p.expected.value,
        what=p.what,
        n=len(change.places),
        prompts=len(set(groups)),
        views={v.name: _shift(change, v, originals, groups, seed) for v in views},
        rewards=_rewards(change, originals, groups, seed),
        example=change.example,
    )


def verdict(shift: Interval, expected: Expected) -> Verdict:
    """What a shift says about the view; "moves" is: 0 lies outside the interval.

    `gains`: moves up, so the change pays, which none should; `falls`: moves down, as it should; `penalised`: moves down though
    the content is the same; `holds`: does not move, as it should not; `not noticed`: does not move though it should fall.
    """
    if math.isnan(shift.low):
        return "unknown"
    if shift.low > 0:
        return "gains"
    if shift.high < 0:
        return "falls" if expected is Expected.WORSE else "penalised"
    return "holds" if expected is Expected.SAME else "not noticed"


def as_expected(said: Verdict) -> bool | None:
    """Whether that is how a good reward model behaves; None where nothing can be said."""
    return {"gains": False, "not noticed": False, "falls": True, "holds": True, "penalised": True}.get(said)


def _rewards(change: Changed, originals: Originals, groups: Sequence[str], seed: int) -> dict[str, Interval]:
    # Each in standard deviations of its own: what the probe sees in the change, whatever weight the gate gives it.
    scale = np.array([_spread(column) for column in originals.rewards.T])
    moved = means_by_group((change.rewards - originals.rewards[change.places]) / scale, groups, seed=seed)
    return dict(zip(originals.objectives, moved, strict=True))


def _shift(change: Changed, view: View, originals: Originals, groups: Sequence[str], seed: int) -> Shift:
    before, after = originals.views[view.name], change.views[view.name]
    spread = _spread(before.scores)
    difference = (after.scores - before.scores[change.places]) / spread
    parts = after.parts - before.parts[change.places]
    columns = np.column_stack([difference, np.where(difference > 0, 1.0, 0.0), parts / spread])
    shift, risen, *rest = means_by_group(columns, groups, seed=seed)
    said = verdict(shift, change.perturbation.expected)
    moved = dict(zip(view.parts, rest, strict=True))
    return Shift(shift=shift, risen=risen, verdict=said, as_expected=as_expected(said), parts=moved)


def means_by_group(values: Float[np.ndarray, "n q"], groups: Sequence[str], *, seed: int) -> tuple[Interval, ...]:
    """Column means with intervals that resample whole prompts, all from one bootstrap. Rows that hold a NaN are left out."""
    whole = ~np.isnan(values).any(axis=1)
    kept = values[whole]
    if not len(kept):
        return (Interval.undefined(),) * values.shape[1]

    def means(weights: np.ndarray) -> np.ndarray:
        return weights @ kept / weights.sum(axis=1, keepdims=True)

    return bootstrap_by_group(means, [g for g, w in zip(groups, whole, strict=True) if w], seed=seed, resamples=RESAMPLES)


def _spread(values: Float[np.ndarray, " n"]) -> float:
    finite = values[np.isfinite(values)]
    spread = float(finite.std(ddof=1)) if len(finite) > 1 else math.nan
    return spread if spread > 0 else math.nan
