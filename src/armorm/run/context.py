"""What every stage of a run is given besides the values of the stages before it.

In: a recipe, its objectives, a reporter.  Out: `RunContext`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from armorm.data.splits import Split, folds_of
from armorm.objectives import Objectives
from armorm.progress import Reporter
from armorm.recipe import Recipe
from armorm.run.rows import side_of

TEST = -1
"""In the place of a fold's number: prompts of the test split are in no fold."""


@dataclass(frozen=True)
class RunContext:
    """A recipe, its objectives, and where to tell what is done."""

    recipe: Recipe
    objectives: Objectives
    reporter: Reporter

    def sides(self, groups: Sequence[str]) -> list[Split]:
        """The split of each prompt group."""
        known = {group: side_of(group, self.recipe) for group in set(groups)}
        return [known[group] for group in groups]

    def folds(self, groups: Sequence[str]) -> Int[np.ndarray, " n"]:
        """The fold of each prompt group, `TEST` for those of the test split."""
        seed, folds = self.recipe.seed, self.recipe.probe.folds
        known = {group: folds_of(group, seed=seed, folds=folds) for group in set(groups)}
        sides = zip(groups, self.sides(groups), strict=True)
        return np.array([TEST if side is Split.TEST else known[group] for group, side in sides], dtype=np.int64)
