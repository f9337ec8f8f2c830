"""A reward model written in the released ArmoRM's layout, for programs that were made for that checkpoint.

In: a `RewardModel`.  Out: a folder with that layout's config.json, tensors and tokenizer.  Cost: one copy of the weights.

What the layout has no word for is refused, never approximated. β stays out of its tensors, where the same place holds a factor of
the score; it is kept, with the objectives' names, under a key of config.json that other readers pass over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import save_torch_state_dict
from torch import Tensor

from armorm.errors import CheckpointError
from armorm.features.spec import FeatureSpec
from armorm.model.layouts.released import EXTRAS, LAYOUTS, PROMPT, RESPONSE
from armorm.model.reward_model import RewardModel

SHARD = "5GB"


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
    save_torch_state_dict(_tensors(model), folder, max_shard_size=max_shard_size)
    if model.tokenizer is not None:
        _save_tokenizer(model.tokenizer, folder)
    model.save_beside(folder)
    text = json.dumps(_config(model), indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def _tensors(model: RewardModel) -> dict[str, Tensor]:
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    return tensors | {"gating.logit_scale": torch.tensor([model.config.gate_scale], dtype=torch.float32)}


def _config(model: RewardModel) -> dict[str, Any]:
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
    file.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
