"""Fitted parts on disk: safetensors for the numbers, sealed JSON for what they mean.

In: Probe, Debias, Gate.  Out: two files each; read back they give the same numbers, or an error that names the damaged file.
Cost: a SHA-256 of a few megabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from armorm.disk import load_part, save_part
from armorm.errors import CheckpointError, FitError
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.probe import Probe
from armorm.objectives import Objectives

FORMAT = 2
REMEDY = "remove the stage's folder and train again"


def save_probe(folder: Path, probe: Probe, feature: str) -> None:
    tensors = {"weights": probe.weights, "intercepts": probe.intercepts, "alphas": probe.alphas}
    _save(folder, "probe", tensors, probe.objectives, {"feature": feature})


def load_probe(folder: Path) -> tuple[Probe, str]:
    """The probe and the spec of the feature it reads. Raises CheckpointError, as all of these do."""
    t, objectives, facts = _load(folder, "probe")
    return Probe(objectives, t["weights"], t["intercepts"], t["alphas"]), facts["feature"]


def save_debias(folder: Path, debias: Debias) -> None:
    _save(folder, "debias", {"matrix": debias.matrix}, debias.objectives, {"computed": list(debias.computed)})


def load_debias(folder: Path) -> Debias:
    t, objectives, facts = _load(folder, "debias")
    return Debias(objectives, tuple(facts["computed"]), t["matrix"])


def save_gate(folder: Path, gate: Gate, name: str = "gate") -> None:
    tensors = {f"layers.{i}.weight": w for i, w in enumerate(gate.weights)}
    tensors |= {f"layers.{i}.bias": b for i, b in enumerate(gate.biases)}
    facts = {"temperature": gate.temperature, "scale": gate.scale, "layers": len(gate.weights)}
    _save(folder, name, tensors, gate.objectives, facts)


def load_gate(folder: Path, name: str = "gate") -> Gate:
    t, objectives, facts = _load(folder, name)
    layers = range(facts["layers"])
    weights, biases = (tuple(t[f"layers.{i}.{kind}"] for i in layers) for kind in ("weight", "bias"))
    try:
        return Gate(objectives, weights, biases, facts["temperature"], facts["scale"])
    except FitError as error:
        raise CheckpointError(f"{folder / name}.json: {error}") from error


def _save(folder: Path, name: str, tensors: Mapping[str, np.ndarray], objectives: Objectives, facts: Mapping[str, Any]) -> None:
    if wrong := [key for key, tensor in tensors.items() if not _sound(key, tensor)]:
        raise FitError(f"{name}: {', '.join(wrong)}: NaN or infinity came out of the fit, and is not saved: check its settings")
    save_part(folder, name, tensors, {"objectives": objectives.to_json(), **facts}, FORMAT)


def _load(folder: Path, name: str) -> tuple[dict[str, np.ndarray], Objectives, dict[str, Any]]:
    tensors, facts = load_part(folder, name, FORMAT, remedy=REMEDY)
    if wrong := [key for key, tensor in tensors.items() if not _sound(key, tensor)]:
        raise CheckpointError(f"{folder / name}.safetensors: {', '.join(wrong)} holds NaN or infinity: {REMEDY}")
    return tensors, Objectives.from_json(facts["objectives"], where=f"{folder / name}.json"), facts


def _sound(key: str, tensor: np.ndarray) -> bool:
    # A gate's last biases may be −∞, which `Gate` looks after; public scripts say no strengths.
    if key == "alphas" or tensor.dtype.kind != "f":
        return True
    return bool(np.isfinite(tensor[~np.isneginf(tensor)] if key.endswith(".bias") else tensor).all())
