"""Fitted parts on disk: safetensors for the numbers, sealed JSON for what they mean.

In: Probe, Debias, Gate, Preference, parts of statistics.  Out: two files each; read back they give the same numbers, or an error
that names the damaged file.
Cost: a SHA-256 of a few megabytes; of a part of statistics 4 d² bytes, each time that its triangle is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.disk import load_part, reading_facts, save_part
from armorm.errors import CheckpointError, FitError, ObjectiveMismatch
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.preference import FORMS, Preference
from armorm.fit.probe import Probe
from armorm.fit.statistics import SUMS, Part
from armorm.objectives import Objectives

FORMAT = 2
REMEDY = "remove the stage's folder and train again"
PREFERENCE = "preference"
PREFERENCE_FILES = (f"{PREFERENCE}.safetensors", f"{PREFERENCE}.json")
_PREFERENCE_REMEDY = f"copy both {PREFERENCE} files of this model again, or train it again"


def save_probe(folder: Path, probe: Probe, feature: str) -> None:
    tensors = {"weights": probe.weights, "intercepts": probe.intercepts, "alphas": probe.alphas}
    _save(folder, "probe", tensors, probe.objectives, {"feature": feature})


def load_probe(folder: Path) -> tuple[Probe, str]:
    """The probe and the spec of the feature it reads. Raises CheckpointError, as all of these do."""
    t, objectives, facts = _load(folder, "probe")
    with reading_facts(folder / "probe.json", remedy=REMEDY):
        return Probe(objectives, t["weights"], t["intercepts"], t["alphas"]), str(facts["feature"])


def save_debias(folder: Path, debias: Debias) -> None:
    _save(folder, "debias", {"matrix": debias.matrix}, debias.objectives, {"computed": list(debias.computed)})


def load_debias(folder: Path) -> Debias:
    t, objectives, facts = _load(folder, "debias")
    with reading_facts(folder / "debias.json", remedy=REMEDY):
        return Debias(objectives, tuple(facts["computed"]), t["matrix"])


def save_gate(folder: Path, gate: Gate, name: str = "gate") -> None:
    tensors = {f"layers.{i}.weight": w for i, w in enumerate(gate.weights)}
    tensors |= {f"layers.{i}.bias": b for i, b in enumerate(gate.biases)}
    facts: dict[str, Any] = {"temperature": gate.temperature, "scale": gate.scale, "layers": len(gate.weights)}
    facts |= {"blocks": gate.blocks} if gate.blocks > 1 else {}
    _save(folder, name, tensors, gate.objectives, facts)


def load_gate(folder: Path, name: str = "gate") -> Gate:
    t, objectives, facts = _load(folder, name)
    try:
        with reading_facts(folder / f"{name}.json", remedy=REMEDY):
            layers = range(facts["layers"])
            weights, biases = (tuple(t[f"layers.{i}.{kind}"] for i in layers) for kind in ("weight", "bias"))
            return Gate(objectives, weights, biases, facts["temperature"], facts["scale"], index(facts.get("blocks", 1)))
    except FitError as error:
        raise CheckpointError(f"{folder / name}.json: {error}") from error


def save_preference(folder: Path, preference: Preference, objectives: Objectives) -> None:
    """The calibration of a model with these objectives. Raises StorageError."""
    curve = {"margins": preference.margins, "probabilities": preference.probabilities}
    tensors = {"slope": np.array([preference.slope], dtype=np.float64), **curve}
    facts = {name: getattr(preference, name) for name in ("form", "pairs", "prompts")}
    _save(folder, PREFERENCE, tensors, objectives, facts)


def load_preference(folder: Path, objectives: Objectives | None = None) -> Preference | None:
    """What `save_preference` wrote, None where there is none. Raises ObjectiveMismatch for one of other objectives than these."""
    place = folder / f"{PREFERENCE}.json"
    if not place.is_file():
        return None
    t, own, facts = _load(folder, PREFERENCE, remedy=_PREFERENCE_REMEDY)
    if objectives is not None and own.names != objectives.names:
        raise ObjectiveMismatch(f"the model has {objectives}, {place} has {own}: copy both {PREFERENCE} files of this model")
    try:
        with reading_facts(place, remedy=_PREFERENCE_REMEDY):
            form, curve = facts["form"], (t["margins"], t["probabilities"])
            if form not in FORMS or curve[0].ndim != 1 or curve[0].shape != curve[1].shape:
                raise ValueError(f"a curve of the form {form!r} with arrays of {[x.shape for x in curve]}")
            return Preference(form, index(facts["pairs"]), index(facts["prompts"]), float(t["slope"][0]), *curve)
    except FitError as error:
        raise CheckpointError(f"{place}: {error}") from error


def save_sums(folder: Path, name: str, part: Part, names: Sequence[str]) -> None:
    """A part of statistics, its triangle too; `names` are its objectives'."""
    save_part(folder, name, {"triangle": part.triangle()}, {}, FORMAT)
    tensors = {key: getattr(part, key) for key in SUMS}
    save_part(folder, f"{name}-sums", tensors, {"objectives": list(names), "n": part.n}, FORMAT)


def load_sums(folder: Path, name: str, objectives: Objectives) -> Part:
    """What `save_sums` wrote, about the columns of `objectives`; the triangle is read and checked each time it is asked for."""
    tensors, facts = load_part(folder, f"{name}-sums", FORMAT, remedy=REMEDY)
    with reading_facts(folder / f"{name}-sums.json", remedy=REMEDY):
        columns = tuple(objectives.column(own) for own in facts["objectives"])
        return Part(columns, int(facts["n"]), stored_triangle(folder, name), *(tensors[key] for key in SUMS))


def stored_triangle(folder: Path, name: str) -> Callable[[], Float[np.ndarray, " t"]]:
    """What reads the triangle that `save_sums` wrote."""
    return lambda: load_part(folder, name, FORMAT, remedy=REMEDY)[0]["triangle"]


def _save(folder: Path, name: str, tensors: Mapping[str, np.ndarray], objectives: Objectives, facts: Mapping[str, Any]) -> None:
    if wrong := [key for key, tensor in tensors.items() if not _sound(key, tensor)]:
        raise FitError(f"{name}: {', '.join(wrong)}: NaN or infinity came out of the fit, and is not saved: check its settings")
    save_part(folder, name, tensors, {"objectives": objectives.to_json(), **facts}, FORMAT)


def _load(folder: Path, name: str, *, remedy: str = REMEDY) -> tuple[dict[str, np.ndarray], Objectives, dict[str, Any]]:
    tensors, facts = load_part(folder, name, FORMAT, remedy=remedy)
    if wrong := [key for key, tensor in tensors.items() if not _sound(key, tensor)]:
        raise CheckpointError(f"{folder / name}.safetensors: {', '.join(wrong)} holds NaN or infinity: {remedy}")
    with reading_facts(folder / f"{name}.json", remedy=remedy):
        return tensors, Objectives.from_json(facts["objectives"], where=f"{folder / name}.json"), facts


def _sound(key: str, tensor: np.ndarray) -> bool:
    # A gate's last biases may be −∞, which `Gate` looks after; public scripts say no strengths.
    if key == "alphas" or tensor.dtype.kind != "f":
        return True
    return bool(np.isfinite(tensor[~np.isneginf(tensor)] if key.endswith(".bias") else tensor).all())
