"""The assembled model's config: what a saved reward model says of itself.

In: the fitted parts' facts.  Out: `RewardModelConfig`, a Hugging Face config of type "armorm".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from armorm.objectives import Objectives

FORMAT = 1


class RewardModelConfig(PreTrainedConfig):
    """Config of `RewardModel`.

    `objectives`: list of facts (name, scale, …) in column order; `computed`: names of the computed nuisances that the
    debiasing reads; `response_feature`, `prompt_feature`: feature specs ("18:mean"); `backbone_config`: the decoder's own
    config; `backbone_layers`: its blocks before it was cut to the needed depth; `gate_hidden`: hidden widths of the gate;
    `gate_blocks`: how many gates, of as many seeds, it is the mean of (in no config.json of a gate by itself);
    `gate_scale`: what the gate's weights are multiplied with when scoring: 1 for a gate trained here, whose β (the tensor
    `gating.logit_scale`) takes no part in scores; another number for a gate that came with a scale of its own (see `released`).
    `profile`: a steering profile that is baked in, as `Profile.to_json` has it;
    `rendering`: how conversations are rendered, as `Rendering` has it; `empty_score`: what `forward` gives an empty answer (NaN
    where it is None);
    `header_ids`: the tokens that close a prompt (used on bare token ids only); `closing_ids`: those behind an answer;
    `question_ids`: those that open a user's or a tool's turn behind an answer, one list for each way (none in older folders);
    `empty_ids`: what the template writes in place of an empty answer (an empty think block; mostly nothing).
    """

    model_type = "armorm"
    gate_blocks: int = 1

    def __init__(
        self,
        objectives: Sequence[Mapping[str, Any]] = (),
        computed: Sequence[str] = (),
        response_feature: str = "final:last",
        prompt_feature: str = "final:last",
        backbone_config: Mapping[str, Any] | None = None,
        backbone_layers: int = 0,
        backbone_name: str = "",
        gate_hidden: Sequence[int] = (),
        gate_blocks: int = 1,
        gating_temperature: float = 1.0,
        gate_scale: float = 1.0,
        probe_bias: bool = False,
        max_tokens: int = 2048,
        rendering: Mapping[str, str] | None = None,
        empty_score: float | None = None,
        header_ids: Sequence[int] = (),
        closing_ids: Sequence[int] = (),
        question_ids: Sequence[Sequence[int]] = (),
        empty_ids: Sequence[int] = (),
        profile: Mapping[str, Any] | None = None,
        armorm_format: int = FORMAT,
        **kwargs: Any,
    ) -> None:
        kwargs["num_labels"] = 1
        super().__init__(**kwargs)
        self.objectives = [dict(o) for o in objectives]
        self.computed = list(computed)
        self.response_feature = response_feature
        self.prompt_feature = prompt_feature
        self.backbone_config = dict(backbone_config or {})
        self.backbone_layers = backbone_layers
        self.backbone_name = backbone_name
        self.gate_hidden = list(gate_hidden)
        if gate_blocks != 1:
            self.gate_blocks = gate_blocks
        self.gating_temperature = gating_temperature
        self.gate_scale = gate_scale
        self.probe_bias = probe_bias
        self.max_tokens = max_tokens
        self.rendering = dict(rendering or {})
        self.empty_score = empty_score
        self.header_ids = list(header_ids)
        self.closing_ids = list(closing_ids)
        self.question_ids = [list(question) for question in question_ids]
        self.empty_ids = list(empty_ids)
        self.profile = None if profile is None else dict(profile)
        self.armorm_format = armorm_format
        self.hidden_size = int(self.backbone_config.get("hidden_size", 0))
        self.vocab_size = int(self.backbone_config.get("vocab_size", 0))

    @property
    def named_objectives(self) -> Objectives:
        return Objectives.from_json(self.objectives, where="config.json: objectives")


AutoConfig.register(RewardModelConfig.model_type, RewardModelConfig, exist_ok=True)
