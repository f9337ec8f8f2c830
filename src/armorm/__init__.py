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
    from armorm.model.explain import difference, explain
    from armorm.model.profile import Profile
    from armorm.model.reward_model import RewardModel
    from armorm.model.score import Score
    from armorm.objectives import Objective, Objectives

__version__ = "0.1.0"

_HOME = {
    "Objective": "armorm.objectives",
    "Objectives": "armorm.objectives",
    "Profile": "armorm.model.profile",
    "RewardModel": "armorm.model.reward_model",
    "RewardModelConfig": "armorm.model.config",
    "Score": "armorm.model.score",
    "difference": "armorm.model.explain",
    "explain": "armorm.model.explain",
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
