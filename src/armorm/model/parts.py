"""Fitted parts on disk: safetensors for the numbers, JSON for what they mean.

In: Probe, Debias, Gate.  Out: a folder each; read back they give the same numbers.  Cost: a file or two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from armorm.errors import CheckpointError
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.probe import Probe
from armorm.objectives import Objectives

FORMAT = 1


def save_probe(folder: Path, probe: Probe, feature: str) -> None:
    tensors = {"weights": probe.weights, "intercepts": probe.intercepts, "alphas": probe.alphas}
    _save(folder, "probe", tensors, probe.objectives, {"feature": feature})


def load_probe(folder: Path) -> tuple[Probe, str]:
    """The probe and the spec of the feature it reads."""
    tensors, objectives, facts = _load(folder, "probe")
    return Probe(objectives, tensors["weights"], tensors["intercepts"], tensors["alphas"]), facts["feature"]


def save_debias(folder: Path, debias: Debias) -> None:
    _save(folder, "debias", {"matrix": debias.matrix}, debias.objectives, {"computed": list(debias.computed)})


def load_debias(folder: Path) -> Debias:
    tensors, objectives, facts = _load(folder, "debias")
    return Debias(objectives, tuple(facts["computed"]), tensors["matrix"])


def save_gate(folder: Path, gate: Gate, name: str = "gate") -> None:
    tensors = {f"layers.{i}.weight": w for i, w in enumerate(gate.weights)}
    tensors |= {f"layers.{i}.bias": b for i, b in enumerate(gate.biases)}
    facts = {"temperature": gate.temperature, "scale": gate.scale, "layers": len(gate.weights)}
    _save(folder, name, tensors, gate.objectives, facts)


def load_gate(folder: Path, name: str = "gate") -> Gate:
    tensors, objectives, facts = _load(folder, name)
    layers = range(facts["layers"])
    return Gate(
        objectives,
        tuple(tensors[f"layers.{i}.weight"] for i in layers),
        tuple(tensors[f"layers.{i}.bias"] for i in layers),
        facts["temperature"],
        facts["scale"],
    )


def _save(folder: Path, name: str, tensors: Mapping[str, np.ndarray], objectives: Objectives, facts: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / f"{name}.safetensors")
    whole = {"format": FORMAT, "objectives": objectives.to_json(), **facts}
    (folder / f"{name}.json").write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _load(folder: Path, name: str) -> tuple[dict[str, np.ndarray], Objectives, dict[str, Any]]:
    try:
        facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / f"{name}.safetensors")
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{folder / name}: missing or damaged ({error}): remove the folder and train again") from None
    if facts.get("format") != FORMAT:
        raise CheckpointError(f"{folder / name}: format {facts.get('format')}, this version reads {FORMAT}: train again")
    return tensors, Objectives.from_json(facts["objectives"], where=f"{folder / name}.json"), facts
