"""Fitted parts on disk: safetensors for the numbers, JSON for what they mean.

In: Probe, Debias, Gate.  Out: a folder each; read back they give the same numbers.  Cost: a file or two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from armorm.errors import CheckpointError
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.probe import Probe
from armorm.objectives import Objectives

FORMAT = 1
Part = TypeVar("Part")
Tensors = dict[str, np.ndarray]


def save_probe(folder: Path, probe: Probe, feature: str) -> None:
    tensors = {"weights": probe.weights, "intercepts": probe.intercepts, "alphas": probe.alphas}
    _save(folder, "probe", tensors, probe.objectives, {"feature": feature})


def load_probe(folder: Path) -> tuple[Probe, str]:
    """The probe and the spec of the feature it reads."""
    return _load(folder, "probe", lambda t, o, f: (Probe(o, t["weights"], t["intercepts"], t["alphas"]), f["feature"]))


def save_debias(folder: Path, debias: Debias) -> None:
    _save(folder, "debias", {"matrix": debias.matrix}, debias.objectives, {"computed": list(debias.computed)})


def load_debias(folder: Path) -> Debias:
    return _load(folder, "debias", lambda t, o, f: Debias(o, tuple(f["computed"]), t["matrix"]))


def save_gate(folder: Path, gate: Gate, name: str = "gate") -> None:
    tensors = {f"layers.{i}.weight": w for i, w in enumerate(gate.weights)}
    tensors |= {f"layers.{i}.bias": b for i, b in enumerate(gate.biases)}
    facts = {"temperature": gate.temperature, "scale": gate.scale, "layers": len(gate.weights)}
    _save(folder, name, tensors, gate.objectives, facts)


def load_gate(folder: Path, name: str = "gate") -> Gate:
    def gate(t: Tensors, o: Objectives, f: dict[str, Any]) -> Gate:
        layers = range(f["layers"])
        weights, biases = (tuple(t[f"layers.{i}.{kind}"] for i in layers) for kind in ("weight", "bias"))
        return Gate(o, weights, biases, f["temperature"], f["scale"])

    return _load(folder, name, gate)


def _save(folder: Path, name: str, tensors: Mapping[str, np.ndarray], objectives: Objectives, facts: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / f"{name}.safetensors")
    whole = {"format": FORMAT, "objectives": objectives.to_json(), **facts}
    (folder / f"{name}.json").write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _load(folder: Path, name: str, build: Callable[[Tensors, Objectives, dict[str, Any]], Part]) -> Part:
    try:
        facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        if facts.get("format") != FORMAT:
            raise CheckpointError(f"{folder / name}: format {facts.get('format')}, this version reads {FORMAT}: train again")
        objectives = Objectives.from_json(facts["objectives"], where=f"{folder / name}.json")
        return build(load_file(folder / f"{name}.safetensors"), objectives, facts)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / name}: missing or damaged ({error}): remove the folder and train again") from None
