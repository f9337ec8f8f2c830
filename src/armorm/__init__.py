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
    from armorm.model.score import Score
    from armorm.objectives import Objective, Objectives

__version__ = "0.1.0"

_HOME = {
    "Objective": "armorm.objectives",
    "Objectives": "armorm.objectives",
    "RewardModel": "armorm.model.reward_model",
    "RewardModelConfig": "armorm.model.config",
    "Score": "armorm.model.score",
}
__all__ = ["Objective", "Objectives", "RewardModel", "RewardModelConfig", "Score", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'armorm' has no attribute {name!r}")


def _register_config(auto: Any) -> None:
    from armorm.model.config import RewardModelConfig

    auto.AutoConfig.register(RewardModelConfig.model_type, RewardModelConfig, exist_ok=True)


def _register_model(auto: Any) -> None:
    from armorm.model.config import RewardModelConfig
    from armorm.model.reward_model import RewardModel

    auto.AutoModelForSequenceClassification.register(RewardModelConfig, RewardModel, exist_ok=True)


wrapt.register_post_import_hook(_register_config, "transformers.models.auto.configuration_auto")
wrapt.register_post_import_hook(_register_model, "transformers.models.auto.modeling_auto")
