"""Interpretable, steerable reward models: named objectives, a probe per objective, and a gate that reads the prompt.

What is here is what a user's program names: a model and what its scores and explanations are; a recipe and what runs it; files of
answers; every error. What these return and nobody needs to make is found in their modules.

Importing this is light: torch and transformers are loaded when something needs them. Whenever transformers is imported,
`AutoConfig` and `AutoModelForSequenceClassification` learn the model type "armorm".
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from armorm.errors import (
        ArmormError,
        BackboneError,
        CheckpointError,
        ConversationError,
        DataError,
        FitError,
        InUse,
        MissingExtra,
        ObjectiveMismatch,
        RecipeError,
        StorageError,
        UserError,
    )
    from armorm.jobs.score_file import score_file
    from armorm.model.config import RewardModelConfig
    from armorm.model.reward_model import RewardModel
    from armorm.objectives import Objective, Objectives
    from armorm.recipe import Recipe, load_recipe
    from armorm.run.train import train
    from armorm.scoring.comparison import Comparison
    from armorm.scoring.explain import Difference, Explanation, difference, explain
    from armorm.scoring.profile import Profile
    from armorm.scoring.score import Score

__version__ = "0.1.0"

__all__ = [
    "ArmormError",
    "BackboneError",
    "CheckpointError",
    "Comparison",
    "ConversationError",
    "DataError",
    "Difference",
    "Explanation",
    "FitError",
    "InUse",
    "MissingExtra",
    "Objective",
    "ObjectiveMismatch",
    "Objectives",
    "Profile",
    "Recipe",
    "RecipeError",
    "RewardModel",
    "RewardModelConfig",
    "Score",
    "StorageError",
    "UserError",
    "__version__",
    "difference",
    "explain",
    "load_recipe",
    "score_file",
    "train",
]
_HOMES = {
    "armorm.jobs.score_file": ("score_file",),
    "armorm.model.config": ("RewardModelConfig",),
    "armorm.model.reward_model": ("RewardModel",),
    "armorm.objectives": ("Objective", "Objectives"),
    "armorm.recipe": ("Recipe", "load_recipe"),
    "armorm.run.train": ("train",),
    "armorm.scoring.comparison": ("Comparison",),
    "armorm.scoring.explain": ("Difference", "Explanation", "difference", "explain"),
    "armorm.scoring.profile": ("Profile",),
    "armorm.scoring.score": ("Score",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'armorm' has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "armorm.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _when_imported(theirs: str, ours: str) -> None:
    # Our module registers itself; importing one that is itself being imported does nothing.
    wrapt.register_post_import_hook(lambda _module: import_module(ours), theirs)


_when_imported("transformers.models.auto.configuration_auto", "armorm.model.config")
_when_imported("transformers.models.auto.modeling_auto", "armorm.model.reward_model")
