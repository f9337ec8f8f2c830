"""The assembled model's config: what a saved reward model says of itself.

In: the fitted parts' facts.  Out: `RewardModelConfig`, a Hugging Face config of type "armorm", saved so that other programs take
the folder for what it is: a regression with one label, under a class name that says sequence classification, with a module of two
lines that leads a process without `import armorm` to this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from armorm.disk import write_text
from armorm.objectives import Objectives

FORMAT = 1
ARCHITECTURE = "ArmormForSequenceClassification"
"""The name of the model's class in config.json. Programs choose by its ending how a folder is loaded and served."""
ASIDE = "armorm"
"""The folder, inside a model's, of what is kept beside the weights: all safetensors beside config.json pass for weights."""
MODULE = "modeling_armorm.py"
CODE = """\
\"\"\"Leads to the installed package (pip install armorm): nothing of the model is defined here.\"\"\"
from armorm import RewardModel, RewardModelConfig  # noqa: F401
"""
AUTO_MAP = {
    "AutoConfig": "modeling_armorm.RewardModelConfig",
    "AutoModelForSequenceClassification": "modeling_armorm.RewardModel",
}
"""What `trust_remote_code` loads in a process that has not imported armorm. We ourselves never run a folder's code."""


class RewardModelConfig(PreTrainedConfig):
    """Config of `RewardModel`.

    `objectives`: list of facts (name, scale, …) in column order; `computed`: names of the computed nuisances that the
    debiasing reads; `response_feature`, `prompt_feature`: feature specs ("18:mean"); `backbone_config`: the decoder's own
    config; `backbone_layers`: its blocks before it was cut to the needed depth; `gate_hidden`: hidden widths of the gate;
    `gate_blocks`: how many gates, of as many seeds, it is the mean of (in no config.json of a gate by itself);
    `gate_scale`: what the gate's weights are multiplied with when scoring: 1 for a gate trained here, whose β (the tensor
    `gating.logit_scale`) takes no part in scores; another number for a gate that came with a scale of its own (see `released`).
    `profile`: a steering profile that is baked in, as `Profile.to_json` has it;
    `rendering`: how conversations are rendered, as `Rendering` has it; `empty_score`: what `forward` gives an empty answer (None:
    what the worst ratings give);
    `header_ids`: the tokens that close a prompt (used on bare token ids only); `closing_ids`: those behind an answer;
    `question_ids`: those that open a user's or a tool's turn behind an answer, one list for each way (none in older folders);
    `empty_ids`: what the template writes in place of an empty answer (an empty think block; mostly nothing); `measured`: what was
    measured on held-out data when the model was made, for its card.
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
        measured: Sequence[Mapping[str, Any]] = (),
        armorm_format: int = FORMAT,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("num_labels", None)
        # Without these, programs put the one logit through a sigmoid. Folders of earlier versions say otherwise.
        super().__init__(**{**kwargs, "id2label": {0: "score"}, "label2id": {"score": 0}, "problem_type": "regression"})
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
        self.measured = [dict(one) for one in measured]
        self.armorm_format = armorm_format
        self.hidden_size = int(self.backbone_config.get("hidden_size", 0))
        self.vocab_size = int(self.backbone_config.get("vocab_size", 0))

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write config.json, and beside it the module that leads to this package."""
        self.architectures, self.auto_map = [ARCHITECTURE], dict(AUTO_MAP)
        super().save_pretrained(save_directory, **kwargs)
        write_text(Path(save_directory) / MODULE, CODE)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoConfig") -> None:
        """Nothing: transformers would copy this module's own source into every folder that is saved."""

    @property
    def named_objectives(self) -> Objectives:
        return Objectives.from_json(self.objectives, where="config.json: objectives")


AutoConfig.register(RewardModelConfig.model_type, RewardModelConfig, exist_ok=True)
