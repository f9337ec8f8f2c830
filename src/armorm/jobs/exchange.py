"""Reward models in other layouts: out to the released ArmoRM's, in from its public scripts' parts.

In: a model's name, or files of parts.  Out: a model folder, whole or not at all.  Cost: a load and a copy of the weights.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast, get_args

import torch

from armorm.disk import require_free, writing_folder
from armorm.errors import DataError
from armorm.features.backbone import DType, load_backbone
from armorm.model.folder import local
from armorm.model.layouts.public_parts import assemble_parts, read_parts
from armorm.model.layouts.released import save_released
from armorm.model.reward_model import RewardModel
from armorm.model.soundness import check_heads
from armorm.objectives import Objectives
from armorm.owner import owning

LAYOUTS = ("armorm", "released")
SIZE = re.compile(r"[1-9][0-9]{0,5}[KMGT]B")


def export_model(name: str, out: Path, *, layout: str, shard_size: str, dtype: str | None) -> dict[str, Any]:
    """Write a model in a layout, its decoder in `dtype` if one is given; what was written, as JSON facts."""
    if layout not in LAYOUTS:
        raise DataError(f"there is no layout {layout!r}: use {' or '.join(LAYOUTS)}")
    if not SIZE.fullmatch(shard_size):
        raise DataError(f"shard_size {shard_size!r} is no size: give a number and a unit, such as 5GB or 500MB")
    require_free(out)
    model = RewardModel.from_pretrained(local(name), **({} if dtype is None else {"dtype": getattr(torch, _dtype(dtype))}))
    with owning(out), writing_folder(out, new=True) as folder:
        if layout == "released":
            save_released(model, folder, max_shard_size=shard_size)
        else:
            model.save_pretrained(folder, max_shard_size=shard_size)
    return _facts(model, out) | {"layout": layout}


def import_parts(
    regression: Path,
    gate: Path,
    backbone: str,
    out: Path,
    *,
    transform: Path | None,
    objectives: Path | None,
    temperature: float,
    dtype: str,
    max_tokens: int | None,
) -> dict[str, Any]:
    """Put the files that the public scripts saved and their backbone together; what was written, as JSON facts."""
    kind = _dtype(dtype)
    require_free(out)
    named = None if objectives is None else Objectives.from_file(objectives)
    read = read_parts(regression, gate, transform)
    decoder = load_backbone(backbone, dtype=kind, device="cpu")
    model = assemble_parts(read, decoder, objectives=named, temperature=temperature, max_tokens=max_tokens)
    check_heads(model, str(gate))
    with owning(out), writing_folder(out, new=True) as folder:
        model.save_pretrained(folder)
    return _facts(model, out) | {"layout": "armorm"}


def _dtype(name: str) -> DType:
    if name not in get_args(DType):
        raise DataError(f"there is no dtype {name!r} for a decoder: use {', '.join(get_args(DType))}")
    return cast(DType, name)


def _facts(model: RewardModel, out: Path) -> dict[str, Any]:
    files = sorted(f.name for f in out.iterdir())
    c = model.config
    own = {"objectives": list(model.objectives.names), "gate_scale": c.gate_scale, "max_tokens": c.max_tokens}
    return {"folder": str(out), "files": files, **own}
