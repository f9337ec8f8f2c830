"""A reward model without its decoder: what stands behind the decoder when vLLM runs it, and what an API server needs of it.

In: a model folder or hub id, of either layout.  Out: a `RewardModel` whose `model` is gone: heads, tokenizer, objectives,
what is kept beside.  Cost: reading the heads' tensors.
"""

from __future__ import annotations

from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor

from armorm.errors import CheckpointError
from armorm.features.loading import loading_errors
from armorm.fit.parts import load_preference
from armorm.model.config import RewardModelConfig
from armorm.model.folder import checkpoint_error, folder_beside, local, read_facts, read_tokenizer
from armorm.model.layouts.released import finish_released, is_released, released_config
from armorm.model.reward_model import RewardModel
from armorm.model.soundness import HEADS, check_heads
from armorm.scoring.uncertainty import Uncertainty

NEEDED = ["*.safetensors", "*.json", "*.jinja", "*.model"]


def load_heads(name: str, revision: str | None = None) -> RewardModel:
    """The model's heads in float32 on the CPU; `score` and `forward` need a decoder, and fail.

    Raises CheckpointError when it is no reward model, or a file is missing or damaged.
    """
    name = local(name)
    said = checkpoint_error(name)
    with loading_errors(said):
        folder = Path(name) if Path(name).is_dir() else Path(snapshot_download(name, revision=revision, allow_patterns=NEEDED))
    facts = read_facts(str(folder), {})
    released = is_released(facts)
    with loading_errors(said):
        config = released_config(facts, name) if released else RewardModelConfig.from_dict(facts)
        with torch.device("meta"):
            model = RewardModel(config)
        del model.model
        tensors = {key: value.float() for key, value in _tensors(folder).items()}
    lacking = sorted(
        key for key, tensor in model.state_dict().items() if key not in tensors or tensors[key].shape != tensor.shape
    )
    if lacking:
        raise CheckpointError(f"{name}: the safetensors lack {', '.join(lacking[:3])}, or hold another shape: copy them again")
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tokenizer = read_tokenizer(str(folder), {}, config.vocab_size)
    if released:
        with loading_errors(said):
            finish_released(model, facts)
    check_heads(model, name)
    if (beside := folder_beside(str(folder), {})) is not None:
        model.uncertainty = Uncertainty.load(beside, model.objectives)
        model.preference = load_preference(beside, model.objectives)
    return model.requires_grad_(False).eval()


def _tensors(folder: Path) -> dict[str, Tensor]:
    # The heads' alone; a file may hold nothing of them.
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {key: file.get_tensor(key) for key in file.keys() if key.startswith(HEADS)}  # noqa: SIM118 - no mapping
    return found
