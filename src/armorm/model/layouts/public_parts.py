"""Fitted parts as the public ArmoRM scripts leave them (regression weights, the gate's state dict) → one reward model.

In: .pt or .safetensors files, a backbone, objectives.  Out: `RewardModel`, as the scripts' own code would score with it.
Cost: the backbone's load. A .pt file is a pickle; it is read as tensors only, and refused when it holds anything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from armorm.errors import CheckpointError
from armorm.features.backbone import Backbone, longest_of
from armorm.features.spec import FeatureSpec
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.method import Fitted
from armorm.fit.probe import Probe
from armorm.model.layouts.own import assemble
from armorm.model.layouts.released import PROMPT, RESPONSE, released_objectives
from armorm.model.reward_model import RewardModel
from armorm.objectives import Objectives
from armorm.rendering import Renderer
from armorm.user_files import require_file

_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LAYER = re.compile(r"layers\.(\d+)\.(weight|bias)")


@dataclass(frozen=True, eq=False)
class PublicParts:
    """`regression` [k d], `transform` [k k], the gate's layers in order; `scale` multiplies its weights in the score."""

    regression: np.ndarray
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    scale: float
    transform: np.ndarray


def read_parts(regression: Path, gate: Path, transform: Path | None = None) -> PublicParts:
    """Read the scripts' files.

    `regression`: a dict with `weight` [k d]; `gate`: a state dict with layers.N.weight, layers.N.bias and logit_scale;
    `transform`: [k k] alone or as the only entry of a dict (the scripts save none: without it rewards stay as they are).
    Raises CheckpointError for files that hold anything but tensors of shapes that fit together.
    """
    W = _regression(regression)
    weights, biases, scale = _gate(gate)
    k, d = W.shape
    T = np.eye(k) if transform is None else _only(transform, _tensors(transform))
    if T.shape != (k, k):
        raise CheckpointError(f"{transform}: the transform has the shape {T.shape}, for {k} objectives it is {(k, k)}")
    chain = [w.shape for w in weights]
    fits = all(a[0] == b[1] for a, b in pairwise(chain))
    if not fits or chain[0][1] != d or chain[-1][0] != k or any(b.shape != s[:1] for b, s in zip(biases, chain, strict=True)):
        raise CheckpointError(
            f"{gate}: layers of the shapes {chain} don't lead from {d} features to {k} objectives, which {regression} has: "
            "give the two files of one training"
        )
    return PublicParts(W, weights, biases, scale, T)


def assemble_parts(
    parts: PublicParts, backbone: Backbone, *, objectives: Objectives | None = None, temperature: float, max_tokens: int | None
) -> RewardModel:
    """The model that these parts make on their backbone, reading the tokens that the scripts read.

    Without `objectives` they are the released model's where there are 19. Raises CheckpointError for another number of them,
    BackboneError for a backbone of another width.
    """
    k = len(parts.regression)
    named = released_objectives(k) if objectives is None else objectives
    if len(named) != k:
        raise CheckpointError(f"the regression has {k} objectives, the list names {len(named)}: list them in its order")
    longest = longest_of(backbone.model.config, max_tokens)
    probe = Probe(named, parts.regression, np.zeros(k), np.full(k, np.nan))
    gate = Gate(named, parts.weights, parts.biases, temperature, 1.0)
    fitted = Fitted(probe, RESPONSE, Debias(named, (), parts.transform), gate)
    renderer = Renderer(backbone.tokenizer, max_tokens=longest)
    return assemble(backbone, renderer, fitted, prompt=FeatureSpec.parse(PROMPT), gate_scale=parts.scale)


def _regression(path: Path) -> np.ndarray:
    tensors = _tensors(path)
    names = [n for n in ("weight", "regression_layer.weight") if n in tensors]
    if not names or len(tensors) > 1 or tensors[names[0]].ndim != 2:
        raise CheckpointError(f"{path}: a regression is one matrix `weight` [objectives, width]; this holds {_seen(tensors)}")
    return _array(tensors[names[0]])


def _gate(path: Path) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], float]:
    tensors = {name.removeprefix("gating."): t for name, t in _tensors(path).items()}
    layers = {int(m[1]) for name in tensors if (m := LAYER.fullmatch(name))}
    wanted = {f"layers.{i}.{kind}" for i in range(len(layers)) for kind in ("weight", "bias")} | {"logit_scale"}
    shaped = all(t.ndim == (2 if n.endswith("weight") else 1) for n, t in tensors.items())
    if not layers or set(tensors) != wanted or not shaped or tensors["logit_scale"].numel() != 1:
        raise CheckpointError(
            f"{path}: a gate's state dict has layers.N.weight [out, in] and layers.N.bias [out] for N = 0, 1, …, and "
            f"logit_scale [1]; this holds {_seen(tensors)}"
        )
    order = range(len(layers))
    weights, biases = (tuple(_array(tensors[f"layers.{i}.{kind}"]) for i in order) for kind in ("weight", "bias"))
    return weights, biases, float(tensors["logit_scale"])


def _only(path: Path, tensors: Mapping[str, Tensor]) -> np.ndarray:
    if len(tensors) != 1:
        raise CheckpointError(f"{path}: a transform is one matrix [objectives, objectives]; this holds {_seen(tensors)}")
    return _array(next(iter(tensors.values())))


def _tensors(path: Path) -> dict[str, Tensor]:
    # Named tensors of a file; a bare tensor's name is "".
    require_file(path, kind=CheckpointError, remedy="give a .pt or .safetensors file with a part's tensors")
    try:
        found = (
            load_file(path) if path.suffix.lower() == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        )
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}): copy it again") from error
    except Exception as error:  # the reader raises what it meets: code in a pickle, a damaged archive, any other file
        raise CheckpointError(
            f"{path} can't be read as tensors alone: it is damaged, or holds code or other objects, and nothing of it was run. "
            "Save the state dict alone, best as safetensors"
        ) from error
    named = {"": found} if isinstance(found, Tensor) else found
    if not isinstance(named, Mapping) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in named.items()):
        raise CheckpointError(f"{path} holds something else than named tensors: save the state dict alone")
    if wrong := [name for name, tensor in named.items() if not _is_sound(tensor)]:
        raise CheckpointError(f"{path}: {', '.join(map(repr, wrong[:3]))} holds other than finite real numbers: train again")
    return dict(named)


def _is_sound(tensor: Tensor) -> bool:
    # Finite as they are used, and each in the file: one number that is spread over a shape takes memory without end.
    plain = tensor.dtype in _NUMBERS and tensor.layout == torch.strided and tensor.device.type == "cpu"
    whole = plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    return whole and bool(tensor.float().isfinite().all())


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().numpy()


def _seen(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name or 'a tensor'} {list(t.shape)}" for name, t in list(tensors.items())[:6]) or "nothing"
