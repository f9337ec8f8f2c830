"""What vLLM calls in each of its processes: the model type "armorm", both layouts' classes, and what computes features.

In: nothing; vLLM finds `register` by the entry point `vllm.general_plugins`.
Out: entries in transformers' and vLLM's registries.
"""

from __future__ import annotations

from transformers import AutoConfig

from armorm.features.vllm_engine import ARCHITECTURE
from armorm.model.layouts.released import LAYOUTS
from armorm.vllm.config import ServedConfig

OWN = ("RewardModel", "ArmormForSequenceClassification")
"""What config.json calls the class in this package's own layout."""


def register() -> None:
    """Called any number of times in a process. The model's own module is read only where a model of ours is served."""
    from vllm import ModelRegistry

    AutoConfig.register(ServedConfig.model_type, ServedConfig, exist_ok=True)
    known = ModelRegistry.get_supported_archs()
    for name in (*OWN, *(layout.architecture for layout in LAYOUTS.values())):
        if name not in known:
            ModelRegistry.register_model(name, "armorm.vllm.model:ServedRewardModel")
    if ARCHITECTURE not in known:
        ModelRegistry.register_model(ARCHITECTURE, "armorm.features.vllm_model:FeatureModel")
