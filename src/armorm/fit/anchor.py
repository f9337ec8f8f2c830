"""The one weight vector that a gate starts from and is held to: the best constant gate, so that every objective can still rise.

In: a constant gate's weights and β.  Out: `Anchor`: logits [k], the KL divergence of a gate's weights from them.

The best constant weights w* are mostly 0: each 0 is a logit of −∞, which nothing moves and from which any weight is infinitely
far. So a hundredth of the weight is spread over all objectives whose reward ever differs: w = (1 − ε) w* + ε / their number. The
scores lose next to nothing by it, and an objective at ε / k rises to a tenth of the weight by some 5 units of its logit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from armorm.fit.gate_settings import LEAST_SCALE, MOST_SCALE

SPREAD = 0.01
"""ε, the part of the weight that is spread."""


@dataclass(frozen=True, eq=False)
class Anchor:
    """Weights [k] that sum to 1, above 0 for every objective that is `live` [k] and 0 for the others; the β that goes with them.

    `scale` is None where no β above 0 was found: in no direction do the weights order pairs better than chance.
    """

    weights: Float[np.ndarray, " k"]
    scale: float | None

    @classmethod
    def of(cls, weights: Float[np.ndarray, " k"], scale: float, live: Bool[np.ndarray, " k"]) -> Anchor:
        """The anchor of a constant gate's weights; the objectives that are not `live` never differ between two answers."""
        spread = (1 - SPREAD) * weights + SPREAD * live / live.sum()
        kept = np.where(live, spread, 0.0)
        return cls(kept / kept.sum(), bounded(scale) if scale > 0 else None)

    def logits(self, temperature: float) -> Float[Tensor, " k"]:
        """What is added to an MLP's logits before they are divided by the temperature; 0 for what is not live."""
        live = self.weights > 0
        return torch.from_numpy(temperature * np.log(np.where(live, self.weights, 1.0))).float()


def bounded(scale: float) -> float:
    """A β between the bounds of those that training takes."""
    return min(max(scale, LEAST_SCALE), MOST_SCALE) if math.isfinite(scale) else MOST_SCALE


def divergence(logits: Float[Tensor, "b k"], weights: Float[Tensor, " k"]) -> Float[Tensor, " b"]:
    """KL(softmax(logits) ‖ weights), in nats; objectives of weight 0 are left out, their logits are −∞."""
    # Σ over live objectives of g (log g − log w)
    live = weights > 0
    log_gate = torch.log_softmax(logits[:, live], dim=-1)  # over k
    return (log_gate.exp() * (log_gate - weights[live].log())).sum(dim=-1)
