"""The released ArmoRM checkpoint's layout (RLHFlow/ArmoRM-Llama3-8B-v0.1), read and written.

In: its config.json's facts; a `RewardModel`.  Out: `RewardModelConfig`; a folder with that layout's files.
Cost: to write, one copy of the weights. No remote code is run.

There, the answer is read at the last token and the prompt at the token that ends the user's turn, both behind the final norm;
score = Σ over k of softmax(MLP(prompt) / temperature) · logit_scale · (rewards @ transform). So `gating.logit_scale` is a factor
of the score, where a model trained here keeps β, which is none: read, the factor becomes the config's `gate_scale`; written, β
is kept out of the tensors, with the objectives' names, under a key of config.json that other readers pass over. What the layout
has no word for is refused, never approximated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import transformers
from annotated_types import Ge, Le
from huggingface_hub import save_torch_state_dict
from pydantic import BaseModel, FiniteFloat, StrictInt, StrictStr, ValidationError
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from armorm.bounds import Size, TokenId
from armorm.disk import write_text
from armorm.errors import BackboneError, CheckpointError, ConversationError
from armorm.features.loading import faults_in
from armorm.features.spec import FeatureSpec
from armorm.model.config import ASIDE, RewardModelConfig
from armorm.model.marks import marks_of
from armorm.objectives import Objective, Objectives
from armorm.sums import listing_written

if TYPE_CHECKING:
    from armorm.model.reward_model import RewardModel

SHARD = "5GB"
SUFFIX = "ForRewardModelWithGating"
RESPONSE, PROMPT = "final:last", "final:turn"
EXTRAS = "armorm"
"""The key in config.json under which an export keeps what the layout has no word for; other readers pass over it."""
MOST = 10_000
"""More objectives, layers or numbers in a layer has no gate."""


class _Gate(BaseModel):
    # What config.json says of the gate; what it lacks is as in the released checkpoint.
    num_objectives: Annotated[StrictInt, Ge(1), Le(MOST)] = 19
    gating_temperature: FiniteFloat = 10
    gating_hidden_dim: Annotated[StrictInt, Ge(0), Le(MOST)] = 1024
    gating_n_hidden: Annotated[StrictInt, Ge(0), Le(MOST)] = 3


class _Extras(BaseModel):
    # What an export kept under a key of its own.
    objectives: list[dict[str, Any]] | None = None
    rendering: dict[str, StrictStr] | None = None
    backbone: StrictStr | None = None
    max_tokens: Size | None = None
    header_ids: list[TokenId] | None = None
    closing_ids: list[TokenId] | None = None
    beta: FiniteFloat = 1.0


NOT_THE_DECODERS = {
    *_Gate.model_fields,
    EXTRAS,
    "architectures",
    "auto_map",
    "id2label",
    "label2id",
    "num_labels",
    "_commit_hash",
}
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
    except ValidationError as error:
        raise CheckpointError(f"{where}: config.json is damaged ({faults_in(error)}): copy it again") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{where}: config.json holds something else than expected ({error}): copy it again") from error


def released_objectives(k: int) -> Objectives:
    """The released model's objectives where there are 19. Of another number nothing is known: objective-1, …, from 0 to 1."""
    if k == _Gate().num_objectives:
        from armorm.data.sources.registry import objectives_of

        return objectives_of(SOURCES)
    return Objectives([Objective(name=f"objective-{i + 1}", min=0, max=1) for i in range(k)])


def _config(facts: dict[str, Any], layout: Layout, where: str) -> RewardModelConfig:
    gate, extras = _Gate.model_validate(facts), _Extras.model_validate(facts.get(EXTRAS) or {})
    decoder = CONFIG_MAPPING[facts["model_type"]].from_dict({k: v for k, v in facts.items() if k not in NOT_THE_DECODERS})
    config = RewardModelConfig(
        objectives=extras.objectives or released_objectives(gate.num_objectives).to_json(),
        response_feature=RESPONSE,
        prompt_feature=PROMPT,
        backbone_config=decoder.to_dict(),
        backbone_layers=decoder.num_hidden_layers,
        backbone_name=extras.backbone or where,
        gate_hidden=[gate.gating_hidden_dim] * gate.gating_n_hidden,
        gating_temperature=gate.gating_temperature,
        rendering=extras.rendering,
        max_tokens=extras.max_tokens or decoder.max_position_embeddings,
        header_ids=extras.header_ids or layout.header,
        closing_ids=extras.closing_ids or layout.closing,
        pad_token_id=decoder.pad_token_id,
        dtype=facts.get("dtype") or facts.get("torch_dtype") or "float32",
    )
    config._commit_hash = facts.get("_commit_hash")
    if len(config.objectives) != gate.num_objectives:
        raise ValueError(f"num_objectives is {gate.num_objectives}, {len(config.objectives)} objectives are named")
    return config


@torch.no_grad()
def finish_released(model: RewardModel, facts: Mapping[str, Any]) -> None:
    """Take over what that layout keeps elsewhere: a factor of the score where β is here, the template's tokens in the tokenizer.

    β is 1 where no export kept it: the released gate was trained with its scale as a part of the score.
    """
    model.gating.scale = model.config.gate_scale = float(model.gating.logit_scale)
    model.gating.logit_scale.fill_(_Extras.model_validate(facts.get(EXTRAS) or {}).beta)
    if getattr(model.tokenizer, "chat_template", None):
        with suppress(BackboneError, ConversationError):
            for name, ids in marks_of(model.renderer).items():
                setattr(model.config, name, ids)


# -- writing -----------------------------------------------------------------------------------------------------------------


def released_faults(model: RewardModel) -> list[str]:
    """Everything about a model that the layout can't say, each with what to do; empty when it can be exported."""
    c = model.config
    kind = c.backbone_config["model_type"]
    if kind not in LAYOUTS:
        return [f"the decoder is {kind!r}, the layout is known for {', '.join(LAYOUTS)}: train on one of these"]
    faults = []
    closing = "final:closing" if len(c.closing_ids) <= 1 else RESPONSE
    if model.response_spec not in map(FeatureSpec.parse, (RESPONSE, closing)):
        also = f" (or {closing}: the same token)" if closing != RESPONSE else ""
        faults.append(f"answers are read at {model.response_spec}, there at {RESPONSE}{also}: train with `features.response` so")
    if str(model.prompt_spec) != PROMPT:
        faults.append(f"prompts are read at {model.prompt_spec}, there at {PROMPT}: train with `features.prompt: {PROMPT}`")
    if c.profile is not None:
        faults.append("a steering profile is baked in: export the model that it was baked from")
    if c.computed:
        faults.append(f"the score has the computed term {', '.join(c.computed)}: leave it out of `debias.nuisances`")
    if c.probe_bias:
        faults.append("the probe has intercepts: train with `probe.intercept: false`")
    if len(set(c.gate_hidden)) > 1:
        faults.append(f"the gate's hidden layers have widths {c.gate_hidden}: train it with one width")
    if max(c.gate_hidden, default=0) > MOST:
        faults.append(
            f"the gate's hidden layers have a width of {max(c.gate_hidden):,}, there at most {MOST:,}: train it with a smaller "
            "`hidden`, or with fewer `seeds` where they make one gate"
        )
    if tuple(c.header_ids) != (header := LAYOUTS[kind].header):
        faults.append(
            f"its chat template opens an answer with the tokens {list(c.header_ids)}, that layout's code looks for "
            f"{list(header)}: train on a {kind} chat model with that template"
        )
    if c.pad_token_id is not None and c.pad_token_id in (*c.header_ids, *c.closing_ids):
        faults.append(
            f"its padding token {c.pad_token_id} is one that the template writes, and that layout's code takes the first one for "
            "the end: give the tokenizer a padding token of its own"
        )
    return faults


def save_released(model: RewardModel, folder: Path, *, max_shard_size: str = SHARD) -> None:
    """Write the model into `folder`, which exists. Raises CheckpointError with everything that the layout can't say."""
    if faults := released_faults(model):
        raise CheckpointError("this model can't be written in the released layout:\n" + "\n".join(f"  - {f}" for f in faults))
    with listing_written(folder, ASIDE):
        save_torch_state_dict(_tensors(model), folder, max_shard_size=max_shard_size)
        if model.tokenizer is not None:
            _save_tokenizer(model.tokenizer, folder)
        model.save_beside(folder)
        text = json.dumps(_facts(model), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        write_text(folder / "config.json", text + "\n")


def _tensors(model: RewardModel) -> dict[str, Tensor]:
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    return tensors | {"gating.logit_scale": torch.tensor([model.config.gate_scale], dtype=torch.float32)}


def _facts(model: RewardModel) -> dict[str, Any]:
    c = model.config
    layout = LAYOUTS[c.backbone_config["model_type"]]
    facts = _before_version_5(c.backbone_config)
    facts |= {
        "architectures": [layout.architecture],
        "num_objectives": len(model.objectives),
        "gating_temperature": c.gating_temperature,
        "gating_hidden_dim": c.gate_hidden[0] if c.gate_hidden else 0,
        "gating_n_hidden": len(c.gate_hidden),
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "torch_dtype": str(next(model.model.parameters()).dtype).removeprefix("torch."),
        "transformers_version": transformers.__version__,
        "use_cache": False,
        EXTRAS: {
            "objectives": model.objectives.to_json(),
            "max_tokens": c.max_tokens,
            "rendering": c.rendering,
            "backbone": c.backbone_name,
            "beta": float(model.gating.logit_scale),
        },
    }
    # Without it the auto classes would take the folder for a classifier and give it a random head.
    return facts | ({"auto_map": {"AutoModelForSequenceClassification": layout.code}} if layout.code else {})


def _before_version_5(config: dict[str, Any]) -> dict[str, Any]:
    # The keys as transformers 4 wrote and reads them, which that checkpoint's own code needs.
    left_out = {"rope_parameters", "dtype", "_name_or_path", "num_labels", "problem_type"}
    facts = {k: v for k, v in config.items() if k not in left_out}
    rope = dict(config.get("rope_parameters") or {})
    if "rope_theta" in rope:
        facts["rope_theta"] = rope.pop("rope_theta")
    facts["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
    return facts


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    # Older readers know no class name of version 5, and look for the template in tokenizer_config.json only.
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    file = folder / "tokenizer_config.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    facts |= {"tokenizer_class": "PreTrainedTokenizerFast"} if (folder / "tokenizer.json").is_file() else {}
    write_text(file, json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
