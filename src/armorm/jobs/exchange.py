"""Reward models in other layouts: out to the released ArmoRM's, in from its public scripts' parts.

In: a model's name, or files of parts.  Out: a model folder, whole or not at all.  Cost: a load and a copy of the weights.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from rich.table import Table

from armorm.errors import DataError, StorageError
from armorm.features.backbone import DType, load_backbone
from armorm.model.layouts.public_parts import assemble_parts, read_parts
from armorm.model.layouts.released import save_released
from armorm.model.reward_model import RewardModel
from armorm.objectives import Objectives

LAYOUTS = ("armorm", "released")
SIZE = re.compile(r"\d+[KMGT]B")


@dataclass(frozen=True)
class Parts:
    """Files of the public scripts."""

    regression: Path
    gate: Path
    transform: Path | None = None


def exported(name: str, out: Path, *, layout: str, shard_size: str, dtype: str | None) -> dict[str, Any]:
    """Write a model in a layout, its decoder in `dtype` if one is given; what was written, as JSON facts."""
    if layout not in LAYOUTS:
        raise DataError(f"there is no layout {layout!r}: use {' or '.join(LAYOUTS)}")
    if not SIZE.fullmatch(shard_size):
        raise DataError(f"--shard-size {shard_size!r} is no size: give a number and a unit, such as 5GB or 500MB")
    _free(out)
    model = RewardModel.from_pretrained(name, **({} if dtype is None else {"dtype": getattr(torch, _dtype(dtype))}))
    if layout == "released":
        _written(out, lambda folder: save_released(model, folder, max_shard_size=shard_size))
    else:
        _written(out, lambda folder: model.save_pretrained(folder, max_shard_size=shard_size))
    return _facts(model, out) | {"layout": layout}


def imported(
    parts: Parts,
    backbone: str,
    out: Path,
    *,
    objectives: Path | None,
    temperature: float,
    dtype: str,
    max_tokens: int | None,
) -> dict[str, Any]:
    """Put public parts and their backbone together; what was written, as JSON facts."""
    kind = _dtype(dtype)
    _free(out)
    named = None if objectives is None else Objectives.from_file(objectives)
    read = read_parts(parts.regression, parts.gate, parts.transform)
    decoder = load_backbone(backbone, dtype=kind, device="cpu")
    model = assemble_parts(read, decoder, objectives=named, temperature=temperature, max_tokens=max_tokens)
    _written(out, model.save_pretrained)
    return _facts(model, out) | {"layout": "armorm"}


def table(facts: Mapping[str, Any]) -> Table:
    """The facts for people."""
    shown = Table("", "", show_header=False)
    for key, value in facts.items():
        shown.add_row(key.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value))
    return shown


def _dtype(name: str) -> DType:
    if name not in get_args(DType):
        raise DataError(f"there is no dtype {name!r} for a decoder: use {', '.join(get_args(DType))}")
    return cast(DType, name)


def _facts(model: RewardModel, out: Path) -> dict[str, Any]:
    files = sorted(f.name for f in out.iterdir())
    c = model.config
    own = {"objectives": list(model.objectives.names), "gate_scale": c.gate_scale, "max_tokens": c.max_tokens}
    return {"folder": str(out), "files": files, **own}


def _free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there and not empty: name a new folder, or remove it first")


def _written(out: Path, write: Callable[[Path], None]) -> None:
    # Beside its place, then renamed: a folder that is there is whole.
    beside = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        write(beside)
        beside.chmod(0o755)
        beside.replace(out)
    except OSError as error:
        raise StorageError(f"{out}: can't be written: {error.strerror or error}. Make room or choose another folder") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
