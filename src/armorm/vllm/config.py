"""A reward model's config as vLLM reads it: the decoder's own config is its text config.

In: config.json in this package's own layout.  Out: `ServedConfig`.
"""

from __future__ import annotations

from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from armorm.model.config import RewardModelConfig


class ServedConfig(RewardModelConfig):
    """The config with the decoder's inside, and in the decoder's type of numbers, whatever the heads' is."""

    def __init__(self, **facts: Any) -> None:
        facts.pop("text_config", None)
        super().__init__(**facts)
        decoder = dict(self.backbone_config)
        if kind := decoder.pop("model_type", None):
            self.text_config = CONFIG_MAPPING[kind].from_dict(decoder)
            if self.text_config.dtype is not None:
                self.dtype: Any = self.text_config.dtype
