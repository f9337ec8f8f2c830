"""What training a decoder leaves: the type of its training.json, its table, its picture.

In: the trainer's facts.  Out: `TuningResults`, a `Report`, an SVG file.  Cost: about 0.2 s for the picture (extra `report`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from armorm.disk import write_text
from armorm.errors import MissingExtra
from armorm.numbers import count, decimal, duration, share
from armorm.report.plots import Curve, CurvePanel, learning_curves, standalone
from armorm.report.tables import Report, table
from armorm.results import Number, Provenance, Result

SMOOTHING = 0.8
"""Of the running mean that is drawn over the single steps' losses."""


class Step(Result):
    """One step of the training."""

    step: int
    """Its number, from 1."""
    loss: float
    """Its loss."""
    learning_rate: float
    """Its learning rate."""
    tokens: int
    """Tokens read by then."""
    seconds: float
    """Time spent by then."""


class Evaluation(Result):
    """Held-out rows at one step."""

    step: int
    """The step."""
    loss: float
    """Their loss."""
    accuracy: Number = float("nan")
    """The share of pairs ranked right, for objectives on pairs."""


class TuningResults(Provenance):
    """What training a decoder left."""

    objective: str
    """What it was trained for."""
    rows: int
    """Rows to learn from."""
    examples: int
    """Examples that were learnt from, a row as often as it was shown."""
    settings: dict[str, Any]
    """The recipe's settings."""
    steps: int
    """Steps of training."""
    tokens: int
    """Tokens that were read."""
    seconds: float
    """Time it took, over every resumption."""
    curve: tuple[Step, ...] = ()
    """Every step; in training.json alone."""
    evaluations: tuple[Evaluation, ...]
    """Held-out rows as it went."""
    model: str = ""
    """The trained decoder's folder; not in the file itself."""


def tuning_report(results: TuningResults) -> Report:
    """The size of the training, and the held-out rows as it went."""
    rows = [[count(one.step), decimal(one.loss, 4), share(one.accuracy)] for one in results.evaluations]
    notes = [f"decoder: {results.model}", f"curve: {Path(results.model).with_name('training.svg')}"] if results.model else []
    steps, examples, tokens = map(count, (results.steps, results.examples, results.tokens))
    size = f"{steps} steps, {examples} examples, {tokens} tokens, {duration(results.seconds)}"
    grid = table("tune.evaluations", rows, objective=results.objective, size=size)
    return Report(results.objective, grids=[grid], notes=notes)


def write_curve(results: TuningResults, path: Path) -> None:
    """Draw the loss of every step (thin), its running mean, the held-out loss (dashed) and the held-out accuracy.

    Without matplotlib nothing is drawn: the numbers stand in training.json. Raises StorageError when the file can't be written.
    """
    try:
        figure = learning_curves(_panels(results), alt=f"Training of {results.objective}: loss by step")
    except MissingExtra:
        return
    write_text(path, standalone(figure))


def _panels(results: TuningResults) -> list[CurvePanel]:
    steps, losses = [float(one.step) for one in results.curve], [one.loss for one in results.curve]
    smooth = list(accumulate(losses, lambda mean, loss: SMOOTHING * mean + (1 - SMOOTHING) * loss))
    loss = [Curve(steps, losses, highlighted=False), Curve(steps, smooth, highlighted=True)]
    loss.append(_held_out(results.evaluations, "loss", dashed=True))
    ranked = [one for one in results.evaluations if "accuracy" in one.model_fields_set]
    panels = [CurvePanel("loss (dashed: held out)", loss)]
    return [*panels, CurvePanel("held-out accuracy", [_held_out(ranked, "accuracy")])] if ranked else panels


def _held_out(rows: Sequence[Evaluation], key: str, *, dashed: bool = False) -> Curve:
    return Curve([float(one.step) for one in rows], [getattr(one, key) for one in rows], highlighted=True, dashed=dashed)
