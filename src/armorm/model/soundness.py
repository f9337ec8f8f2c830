"""Whether a model's own numbers can score: its heads' tensors and the settings of its gate.

In: a model, the name that errors call it by.  Out: nothing, or CheckpointError naming the tensor.  Cost: one look at the heads.

A NaN in a head makes every score NaN, and a best answer of n is then any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from armorm.bounds import COLDEST, HOTTEST, STEEPEST, finite, shown
from armorm.errors import CheckpointError, FitError
from armorm.features.nuisances import places_of
from armorm.fit.gate import stands_in_blocks
from armorm.small_files import shown_sentence

HEADS = ("regression_layer.", "reward_transform_matrix", "gating.")


def check_gate_settings(temperature: Any, scale: Any) -> None:
    """Raises CheckpointError for a temperature or a factor with which a gate gives no weights."""
    if not COLDEST <= finite(temperature) <= HOTTEST:
        raise CheckpointError(
            f"config.json: gating_temperature is {shown(temperature)}, a number from {COLDEST:g} to {HOTTEST:g} is wanted: "
            "copy the file again"
        )
    if not 0 < finite(scale) <= STEEPEST:
        raise CheckpointError(
            f"config.json: gate_scale is {shown(scale)}, a number above 0 and up to {STEEPEST:g} is wanted: copy the file again"
        )


def computed_places(computed: Sequence[str]) -> list[int]:
    """Where the computed nuisances that a config names stand among `COMPUTED`. Raises CheckpointError for another one."""
    try:
        return places_of(computed)
    except FitError as error:
        said = shown_sentence(str(error))
        raise CheckpointError(f"config.json: computed: {said}: copy the file again, or upgrade armorm") from None


def check_heads(model: Any, name: str) -> None:
    """Raises CheckpointError for a head of a model that holds NaN or infinity, and for a β or factor that is none."""
    check_gate_settings(model.gating.temperature, model.gating.scale)
    if wrong := [key for key, tensor in _heads(model) if not _sound(key, tensor, last=len(model.gating.layers) - 1)]:
        raise CheckpointError(f"{name}: {', '.join(wrong[:3])} holds NaN or infinity: copy the model again, or train it again")
    weights, biases = ([_array(getattr(one, kind)) for one in model.gating.layers] for kind in ("weight", "bias"))
    if not stands_in_blocks(weights, biases, model.gating.blocks):
        raise CheckpointError(
            f"{name}: config.json: gate_blocks is {model.gating.blocks}, and the gate's layers are not those of so many gates "
            "beside each other: copy the model again"
        )
    beta = float(model.gating.logit_scale.detach().float())
    if not 0 < beta <= STEEPEST:
        raise CheckpointError(f"{name}: gating.logit_scale is {beta:g}, a number above 0 is wanted: copy the model again")


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _heads(model: Any) -> Iterator[tuple[str, Tensor]]:
    return ((key, tensor) for key, tensor in model.named_parameters() if key.startswith(HEADS))


def _sound(key: str, tensor: Tensor, *, last: int) -> bool:
    values = tensor.detach().float()
    if key == f"gating.layers.{last}.bias":  # a logit of −∞ is a weight of exactly 0; one objective must have another
        return bool(torch.isfinite(values[~values.isneginf()]).all() and torch.isfinite(values).any())
    return bool(torch.isfinite(values).all())
