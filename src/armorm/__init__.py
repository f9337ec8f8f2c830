"""Interpretable, steerable reward models: named objectives, a probe per objective, and a gate that reads the prompt.

Importing this is light: torch and transformers are loaded when something needs them. Whenever transformers is imported,
`AutoConfig` and `AutoModelForSequenceClassification` learn the model type "armorm".
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from armorm.model.config import RewardModelConfig
    from armorm.model.reward_model import RewardModel
    from armorm.objectives import Objective, Objectives
    from armorm.scoring.explain import difference, explain
    from armorm.scoring.profile import Profile
    from armorm.scoring.score import Score

__version__ = "0.1.0"

_HOME = {
    "Objective": "armorm.objectives",
    "Objectives": "armorm.objectives",
    "Profile": "armorm.scoring.profile",
    "RewardModel": "armorm.model.reward_model",
    "RewardModelConfig": "armorm.model.config",
    "Score": "armorm.scoring.score",
    "difference": "armorm.scoring.explain",
    "explain": "armorm.scoring.explain",
}
__all__ = [
    "Objective",
    "Objectives",
    "Profile",
    "RewardModel",
    "RewardModelConfig",
    "Score",
    "__version__",
    "difference",
    "explain",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'armorm' has no attribute {name!r}")


def _when_imported(theirs: str, ours: str) -> None:
    # Our module registers itself; importing one that is itself being imported does nothing.
    wrapt.register_post_import_hook(lambda _module: import_module(ours), theirs)


_when_imported("transformers.models.auto.configuration_auto", "armorm.model.config")
_when_imported("transformers.models.auto.modeling_auto", "armorm.model.reward_model")
