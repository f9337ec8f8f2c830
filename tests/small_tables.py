"""Score tables of numbers that a test chooses, without a model.

In: scores.  Out: `ScoreTable`.  Cost: none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from armorm.objectives import Objective, Objectives
from armorm.scoring.steer import Heads
from armorm.scoring.table import Basis, ScoreTable

ONE = Basis(Objectives([Objective(name="a", min=0, max=1)]), (), torch.eye(1), "final:last")
"""One objective without debiasing: the reward is the score."""


def table_of(scores: Sequence[float]) -> ScoreTable:
    """A table of these scores, exact in float32."""
    rewards = torch.tensor(list(scores), dtype=torch.float32).reshape(-1, 1)
    weights = torch.ones_like(rewards)
    return ScoreTable.of(ONE, Heads(rewards, weights, weights, rewards), np.ones(len(rewards), dtype=np.int64))
