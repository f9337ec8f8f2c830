"""An audit's numbers: how far scores move under a change of the answers, and what in them moves.

In: scores and their parts before and after, per change and view.
Out: the types of audit.json (`AuditResults`), with 95 % intervals by prompt.
Cost: one bootstrap per change and view.

A shift is measured in standard deviations of the view's scores over the file's answers, so that views on different scales stand
side by side: 1 is about the distance between a middling and a good answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from armorm.bench.metrics import LengthCorrelation, length_correlation
from armorm.bench.perturbations import PERTURBATIONS, Expected, Perturbation
from armorm.errors import DataError
from armorm.intervals import Interval, bootstrap_by_group
from armorm.numbers import signed_hundredths
from armorm.results import Estimate, Number, Provenance, Result

RESAMPLES = 1000
Verdict = Literal["gains", "falls", "penalised", "holds", "not noticed", "unknown"]
"""What a shift says about a view; see `verdict`."""


class RivalFacts(Result):
    """The Bradley–Terry rival."""

    feature: str
    """The feature that it reads."""
    strength: float
    """The strength of its regularisation."""


class ViewFacts(Result):
    """A way to score, and its scores of the unchanged answers."""

    name: str
    """Its name."""
    label: str
    """Its name for people."""
    score_mean: Number
    """The mean score."""
    score_std: Number
    """The scores' standard deviation, the unit of the shifts."""
    length: LengthCorrelation
    """How far scores follow the answers' length."""


class Shift(Result):
    """What a change does to the scores of one view."""

    shift: Estimate
    """The mean change of the score, in standard deviations of the view's scores."""
    risen: Estimate
    """The share of answers whose score rises."""
    verdict: Verdict
    """What the shift says about the view."""
    as_expected: bool | None
    """Whether that is how a good reward model behaves; null where nothing can be said."""
    parts: Mapping[str, Estimate]
    """The terms' parts of the shift, which they sum to."""


class Example(Result):
    """The answer that gains most by a change in the model's own view."""

    prompt: str
    """The prompt, shortened."""
    answer: str
    """The answer as it was, shortened."""
    changed: str
    """The answer after the change, shortened."""
    before: float
    """Its score."""
    after: float
    """The changed answer's score."""


class ChangeFacts(Result):
    """What a change of the answers does."""

    name: str
    """Its name."""
    label: str
    """Its name for people."""
    expected: Literal["same", "worse"]
    """Whether it should leave the score alone or lower it."""
    what: str
    """What is done to an answer."""
    n: int
    """Answers that it applies to."""
    prompts: int
    """Their prompts."""
    views: Mapping[str, Shift]
    """What it does, view by view."""
    rewards: Mapping[str, Estimate]
    """How far rewards before debiasing move, each in standard deviations of its own."""
    example: Example
    """Where to look first."""


class AuditResults(Provenance):
    """Everything that an audit found."""

    format: int
    """The number of the file's format."""
    model: str
    """The model's folder or hub id."""
    file: str
    """The file of answers."""
    seed: int
    """The random seed."""
    prompts: int
    """Prompts that were audited."""
    answers: int
    """Their answers."""
    left_out: Mapping[str, int]
    """By reason, rows that were left out, and answers that the chat template refuses."""
    rival: RivalFacts | None
    """The Bradley–Terry rival that stands beside the model; null where there is none."""
    views: tuple[ViewFacts, ...]
    """The ways to score, the model's own first."""
    perturbations: tuple[ChangeFacts, ...]
    """The changes."""
    objectives: tuple[str, ...]
    """The model's objectives."""
    max_tokens: int
    """The most tokens that a conversation keeps."""
    truncated: int
    """Answers that did not fit and were cut."""
    changed: int
    """Changed answers that were scored."""
    changed_truncated: int
    """Changed answers that did not fit and were cut."""
    notes: Mapping[str, int]
    """By what the chat template left out or could not keep apart, how many of the unchanged answers."""
    folder: str = ""
    """Where the files were written; not in the files themselves."""


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


def changes_named(words: Sequence[str]) -> tuple[str, ...]:
    """Changes by name; `all` are all of them, `same` and `worse` those of which that is expected. Raises DataError for a word
    that names none."""
    kinds = {"all": tuple(Expected), **{kind.value: (kind,) for kind in Expected}}
    names = [p.name for p in PERTURBATIONS]
    if unknown := [word for word in words if word not in (*kinds, *names)]:
        raise DataError(f"no change is called {unknown[0]!r}; there are {', '.join((*kinds, *names))}")
    return tuple(p.name for p in PERTURBATIONS if any(w == p.name or p.expected in kinds.get(w, ()) for w in words))


def failures(results: AuditResults, words: Sequence[str]) -> list[str]:
    """A sentence for each of these changes (see `changes_named`) under which the model does not do what a good one would.

    A change that nothing can be said of has failed too; one that applies to no answer of the file, where it was named itself.
    """
    found = {row.name: row for row in results.perturbations}
    wanted = [name for name in changes_named(words) if name in found or name in words]
    return [sentence for name in wanted if (sentence := _failure(name, found.get(name), results.views[0].name))]


def _failure(name: str, row: ChangeFacts | None, view: str) -> str:
    if row is None:
        return f"{name}: applies to no answer of the file"
    one, wish = row.views[view], {"same": "should not rise", "worse": "should fall"}[row.expected]
    if one.as_expected is None:
        return f"{name}: {wish}; too few prompts ({row.prompts}) to say whether it does"
    low, middle, high = (signed_hundredths(x) for x in (one.shift.low, one.shift.value, one.shift.high))
    return "" if one.as_expected else f"{name}: {wish}, and moves by {middle} standard deviations ({low} to {high})"


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
