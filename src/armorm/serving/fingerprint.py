"""A short text that tells one model from another: equal over replicas and restarts, different for different scores.

In: a reward model, or its heads alone.  Out: a digest; the header that carries it, and how OpenAPI describes that.
Cost: at most `SAMPLED` values of each tensor, read once.

It is no proof of a model's bytes (`armorm.sums` is): a change that spares every value that is sampled goes unseen.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

HEADER = "X-Armorm-Model"
SAMPLED = 1024
"""Values of each parameter and buffer that are looked at."""
DESCRIBED = {
    HEADER: {"description": "A digest of the model: where it is another, scores are another's", "schema": {"type": "string"}}
}


def fingerprint(model: Any, *more: str) -> str:
    """The digest of a model's tensors, objectives, baked-in profile, chat template and rendering, and of further texts."""
    profile, renderer = model.profile, model.renderer
    facts = [
        list(model.basis.objectives.names),
        None if profile is None else profile.to_json(),
        renderer.rendering.to_json(),
        getattr(getattr(model, "tokenizer", None), "chat_template", None),
        *more,
    ]
    found = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    held = model.state_dict()
    for name, tensor in ((name, held[name]) for name in sorted(held) if isinstance(held[name], Tensor)):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(_sample(tensor))
    return found.hexdigest()


def _sample(tensor: Tensor) -> bytes:
    # An odd stride, so that not all of them stand in one column.
    values = tensor.detach().reshape(-1)
    stride = -(-values.numel() // SAMPLED) | 1
    return values[:: max(stride, 1)].contiguous().cpu().view(torch.uint8).numpy().tobytes()
