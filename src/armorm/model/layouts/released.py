"""The released ArmoRM checkpoint's layout (RLHFlow/ArmoRM-Llama3-8B-v0.1): what its config.json says, in this package's words.

In: the config's facts.  Out: `RewardModelConfig`; the layout's constants per decoder.  Cost: none. No remote code is run.

There, the answer is read at the last token and the prompt at the token that ends the user's turn, both behind the final norm;
score = Σ over k of softmax(MLP(prompt) / temperature) · logit_scale · (rewards @ transform). So `gating.logit_scale` is a factor
of the score, where a model trained here keeps β, which is none: read, the factor becomes the config's `gate_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from armorm.errors import CheckpointError
from armorm.model.config import RewardModelConfig
from armorm.objectives import Objective, Objectives

SUFFIX = "ForRewardModelWithGating"
RESPONSE, PROMPT = "final:last", "final:turn"
EXTRAS = "armorm"
"""The key in config.json under which an export keeps what the layout has no word for; other readers pass over it."""
DEFAULTS = {"num_objectives": 19, "gating_temperature": 10, "gating_hidden_dim": 1024, "gating_n_hidden": 3}
NOT_THE_DECODERS = {*DEFAULTS, EXTRAS, "architectures", "auto_map", "id2label", "label2id", "num_labels", "_commit_hash"}
SOURCES = ("helpsteer", "ultrafeedback", "beavertails", "prometheus", "capybara", "openorca", "code-ultrafeedback")
"""Rating sets that together have the released model's objectives, on the raters' own scales."""


@dataclass(frozen=True)
class Layout:
    """One decoder's form of the layout.

    `header`: the token ids that the released code looks for, last match first, and whose start is the gate's place;
    `closing`: what the decoder's own chat template puts behind an answer; `code`: where the class is published, if it is.
    """

    architecture: str
    header: tuple[int, ...]
    closing: tuple[int, ...]
    code: str | None = None


LAYOUTS: Mapping[str, Layout] = {
    "llama": Layout(
        "Llama" + SUFFIX,
        (128009, 128006, 78191, 128007, 271),  # <|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n
        (128009,),
        f"RLHFlow/ArmoRM-Llama3-8B-v0.1--modeling_custom.Llama{SUFFIX}",
    ),
    "gemma2": Layout(
        "Gemma2" + SUFFIX,
        (107, 108, 106, 2516, 108),  # <end_of_turn>\n<start_of_turn>model\n
        (107, 108),
    ),
}
"""By the decoder's model type."""


def is_released(facts: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of the released layout."""
    return any(str(a).endswith(SUFFIX) for a in facts.get("architectures") or ())


def released_config(facts: Mapping[str, Any], where: str) -> RewardModelConfig:
    """The config of a folder in the released layout; the gate's scale is not in it, but among the tensors.

    Raises CheckpointError for a decoder that the layout is not known for, or facts that are none.
    """
    kind = str(facts.get("model_type"))
    if kind not in LAYOUTS:
        raise CheckpointError(f"{where}: a gated reward model on {kind!r}; the layout is known for {', '.join(LAYOUTS)}")
    try:
        return _config(dict(facts), LAYOUTS[kind], where)
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{where}: config.json holds something else than expected ({error}): copy it again") from error


def released_objectives(k: int) -> Objectives:
    """The released model's objectives where there are 19. Of another number nothing is known: objective-1, …, from 0 to 1."""
    if k == DEFAULTS["num_objectives"]:
        from armorm.data.sources.registry import objectives_of

        return objectives_of(SOURCES)
    return Objectives([Objective(name=f"objective-{i + 1}", min=0, max=1) for i in range(k)])


def _config(facts: dict[str, Any], layout: Layout, where: str) -> RewardModelConfig:
    gate = {key: facts.get(key, default) for key, default in DEFAULTS.items()}
    extras = facts.get(EXTRAS) or {}
    decoder = CONFIG_MAPPING[facts["model_type"]].from_dict({k: v for k, v in facts.items() if k not in NOT_THE_DECODERS})
    config = RewardModelConfig(
        objectives=extras.get("objectives") or released_objectives(int(gate["num_objectives"])).to_json(),
        response_feature=RESPONSE,
        prompt_feature=PROMPT,
        backbone_config=decoder.to_dict(),
        backbone_layers=decoder.num_hidden_layers,
        backbone_name=extras.get("backbone", where),
        gate_hidden=[int(gate["gating_hidden_dim"])] * int(gate["gating_n_hidden"]),
        gating_temperature=float(gate["gating_temperature"]),
        max_tokens=int(extras.get("max_tokens") or decoder.max_position_embeddings),
        header_ids=extras.get("header_ids") or layout.header,
        closing_ids=extras.get("closing_ids") or layout.closing,
        pad_token_id=decoder.pad_token_id,
        dtype=facts.get("dtype") or facts.get("torch_dtype") or "float32",
    )
    config._commit_hash = facts.get("_commit_hash")
    if len(config.objectives) != gate["num_objectives"]:
        raise ValueError(f"num_objectives is {gate['num_objectives']}, {len(config.objectives)} objectives are named")
    return config


def beta_of(facts: Mapping[str, Any]) -> float:
    """β, where an export kept it; 1 otherwise: the released gate was trained with its scale as a part of the score."""
    return float((facts.get(EXTRAS) or {}).get("beta", 1.0))
