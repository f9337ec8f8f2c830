"""The picture of a decoder's training: loss and accuracy over the steps.

In: training facts (as `armorm tune` writes them).  Out: an SVG file.  Cost: about 0.2 s; needs matplotlib (extra `report`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from armorm.errors import MissingExtra, StorageError
from armorm.report.plots import Curve, CurvePanel, learning_curves, standalone

SMOOTHING = 0.8
"""Of the running mean that is drawn over the single steps' losses."""


def write_curve(facts: Mapping[str, Any], path: Path) -> None:
    """Draw the loss of every step (thin), its running mean, the held-out loss (dashed) and the held-out accuracy.

    Without matplotlib nothing is drawn: the numbers stand in training.json. Raises StorageError when the file can't be written.
    """
    try:
        figure = learning_curves(_panels(facts), alt=f"Training of {facts['objective']}: loss by step")
    except MissingExtra:
        return
    try:
        path.write_text(standalone(figure), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: can't be written: {error.strerror}; choose another --out") from error


def _panels(facts: Mapping[str, Any]) -> list[CurvePanel]:
    steps, losses = _columns(facts["curve"], "loss")
    smooth = list(accumulate(losses, lambda mean, loss: SMOOTHING * mean + (1 - SMOOTHING) * loss))
    loss = [Curve(steps, losses, highlighted=False), Curve(steps, smooth, highlighted=True)]
    at, held_out = _columns(facts["evaluations"], "loss")
    panels = [CurvePanel("loss (dashed: held out)", [*loss, Curve(at, held_out, highlighted=True, dashed=True)])]
    at, accuracy = _columns(facts["evaluations"], "accuracy")
    return [*panels, CurvePanel("held-out accuracy", [Curve(at, accuracy, highlighted=True)])] if accuracy else panels


def _columns(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    found = [(float(row["step"]), float(row[name])) for row in rows if name in row]
    return [step for step, _ in found], [value for _, value in found]
