"""What an audit finds: the types of its audit.json.

In: numbers with 95 % intervals by prompt.  Out: `AuditResults`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from armorm.bench.metrics import LengthCorrelation
from armorm.results import Estimate, Number, Provenance, Result

Verdict = Literal["gains", "falls", "penalised", "holds", "not noticed", "unknown"]
"""What a shift says about a view; see `audit.verdict`."""


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
    """By reason, rows that were left out."""
    rival: RivalFacts | None
    """The Bradley–Terry rival that stands beside the model; null where there is none."""
    views: tuple[ViewFacts, ...]
    """The ways to score, the model's own first."""
    perturbations: tuple[ChangeFacts, ...]
    """The changes."""
    objectives: tuple[str, ...]
    """The model's objectives."""
    truncated: int
    """Answers that lost their oldest part because they did not fit."""
    folder: str = ""
    """Where the files were written; not in the files themselves."""
