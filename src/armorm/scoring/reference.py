"""What a model usually says: how rewards and scores are spread over reference answers, and which prompts open which gate.

In: rewards [n k] and scores [n] of reference answers, gate weights [m k] of training prompts with their texts.
Out: `Reference`: percentiles of a value, the prompts whose gates are nearest; `reference.safetensors` and `reference.json`.
Cost: one sort per objective; a lookup reads m k numbers. On disk (101 + m) k numbers and m shortened texts.

The distance between two gates is Hellinger's, √(1 − Σ √(p q)): 0 for the same weights, 1 for no objective in common. It is a
metric, needs no logarithm of a zero weight, and a small weight that doubles counts as well as a large one that moves a little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.disk import load_part, reading_facts, save_part
from armorm.errors import CheckpointError, ObjectiveMismatch
from armorm.numbers import shorten

FORMAT = 2
NAME = "reference"
FILES = (f"{NAME}.safetensors", f"{NAME}.json")
REMEDY = "copy both again, or train the model"
SCORE = "score"
LEVELS = 101
LONGEST = 300


@dataclass(frozen=True)
class Alike:
    """A training prompt, its source, and how far its gate is from the one asked about (0 to 1)."""

    prompt: str
    source: str
    distance: float

    def to_json(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "source": self.source, "distance": self.distance}


@dataclass(frozen=True, eq=False)
class Reference:
    """`quantiles` [q, k+1]: of each reward and, last, the score, from 0 to 100 %, over `answers` reference answers.

    `gates` [m k]: weights of the prompts in `prompts`, whose sources are in `sources`; a row sums to 1.
    """

    objectives: tuple[str, ...]
    answers: int
    quantiles: Float[np.ndarray, "q columns"]
    prompts: tuple[str, ...]
    sources: tuple[str, ...]
    gates: Float[np.ndarray, "m k"]

    @classmethod
    def of(
        cls,
        objectives: Sequence[str],
        rewards: Float[np.ndarray, "n k"],
        scores: Float[np.ndarray, " n"],
        *,
        prompts: Sequence[str] = (),
        sources: Sequence[str] | None = None,
        gates: Float[np.ndarray, "m k"] | None = None,
    ) -> Reference:
        """Summarise reference answers, with the prompts that `draw_prompts` chose; their texts are cut to 300 characters.

        Rows with a value that is not finite don't count. Raises ObjectiveMismatch for arrays that don't fit the names.
        """
        gates = np.zeros((0, len(objectives))) if gates is None else gates
        named = tuple(sources) if sources is not None else ("",) * len(prompts)
        if rewards.shape[1] != len(objectives) or gates.shape[1] != len(objectives):
            found = f"{rewards.shape[1]} rewards and {gates.shape[1]} gate weights"
            raise ObjectiveMismatch(f"{found} for {len(objectives)} objectives: give one column for each, in their order")
        if not len(prompts) == len(gates) == len(named) or len(scores) != len(rewards):
            raise ObjectiveMismatch(
                f"{len(prompts)} prompts, {len(named)} sources and {len(gates)} gates; {len(rewards)} rewards and {len(scores)} "
                "scores: give one of each for every prompt, and for every answer"
            )
        finite = np.isfinite(rewards).all(axis=1) & np.isfinite(scores)
        quantiles = np.stack([_quantiles(column[finite]) for column in (*rewards.T, scores)], axis=1)
        texts = tuple(shorten(prompt, LONGEST) for prompt in prompts)
        shares = _shares(gates).astype(np.float32)
        return cls(tuple(objectives), int(finite.sum()), quantiles.astype(np.float32), texts, named, shares)

    def percentile(self, name: str, value: float) -> float | None:
        """The share of reference answers below a reward (or "score"), in %, those that equal it counted half.

        None without reference answers. Raises ObjectiveMismatch for another name.
        """
        if name != SCORE and name not in self.objectives:
            raise ObjectiveMismatch(f"there is no objective {name!r}; the reference has {', '.join(self.objectives)}")
        if not self.answers or not np.isfinite(value):
            return None
        column = self.quantiles[:, len(self.objectives) if name == SCORE else self.objectives.index(name)]
        levels, at = np.linspace(0, 100, len(column)), np.float32(value)
        first, last = np.searchsorted(column, at, "left"), np.searchsorted(column, at, "right")
        if last > first:  # on a quantile, or on a flat piece of them: its middle
            return float((levels[first] + levels[last - 1]) / 2)
        return float(np.interp(at, column, levels))

    def alike(self, gate: Mapping[str, float], n: int = 5) -> tuple[Alike, ...]:
        """The n training prompts whose gates are nearest (Hellinger), nearest first; fewer where there are fewer."""
        if set(gate) != set(self.objectives):
            raise ObjectiveMismatch(f"the gate weighs {', '.join(gate)}; the reference has {', '.join(self.objectives)}")
        asked = _shares(np.array([[gate[name] for name in self.objectives]], dtype=np.float64))[0]
        overlap = np.sqrt(self.gates.astype(np.float64)) @ np.sqrt(asked)
        distance = np.sqrt(np.clip(1 - overlap, 0, 1))
        nearest = np.argsort(distance, kind="stable")[:n]
        return tuple(Alike(self.prompts[i], self.sources[i], float(distance[i])) for i in nearest)

    def save(self, folder: Path) -> None:
        """Write `reference.safetensors`, then `reference.json`. Raises StorageError."""
        prompts = [{"source": s, "text": p} for p, s in zip(self.prompts, self.sources, strict=True)]
        facts = {"objectives": list(self.objectives), "answers": self.answers, "prompts": prompts}
        save_part(folder, NAME, {"quantiles": self.quantiles, "gates": self.gates}, facts, FORMAT)

    @classmethod
    def load(cls, folder: Path, objectives: Sequence[str] | None = None) -> Reference | None:
        """The reference saved in a folder, None where there is none.

        Raises CheckpointError for files that are damaged or of another format, ObjectiveMismatch for other objectives than these.
        """
        path = folder / f"{NAME}.json"
        if not path.is_file():
            return None
        tensors, facts = load_part(folder, NAME, FORMAT, remedy=REMEDY)
        with reading_facts(path, remedy=REMEDY):
            return cls._of(tensors, facts, path, objectives)

    @classmethod
    def _of(
        cls, tensors: dict[str, np.ndarray], facts: dict[str, Any], path: Path, objectives: Sequence[str] | None
    ) -> Reference:
        names, prompts, answers = tuple(map(str, facts["objectives"])), facts["prompts"], int(facts["answers"])
        gates, quantiles = tensors["gates"], tensors["quantiles"]
        if objectives is not None and tuple(objectives) != names:
            raise ObjectiveMismatch(
                f"{path} is of {', '.join(names)}, the model of {', '.join(objectives)}: copy the model's own"
            )
        if answers and not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise CheckpointError(f"{path.with_suffix('.safetensors')}: holds NaN or infinity: copy it again")
        texts, sources = (tuple(str(p[key]) for p in prompts) for key in ("text", "source"))
        if gates.shape != (len(texts), len(names)) or quantiles.shape[1:] != (len(names) + 1,):
            raise ValueError(f"arrays of {gates.shape} and {quantiles.shape} for {len(texts)} prompts")
        return cls(names, answers, quantiles, texts, sources, gates)


def draw_prompts(texts: Iterable[str], *, most: int = 2000, seed: int = 0) -> list[int]:
    """Places of at most `most` of the distinct texts, drawn at random, in order; of each text a hash is in memory."""
    first: dict[bytes, int] = {}
    for place, text in enumerate(texts):
        first.setdefault(blake2b(text.encode("utf-8", "replace"), digest_size=16).digest(), place)
    drawn = np.random.default_rng(seed).permutation(np.array(list(first.values()), dtype=np.int64))[:most]
    return np.sort(drawn).tolist()


def _shares(gates: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "m k"]:
    sums = gates.sum(axis=1, keepdims=True)  # over k
    return np.divide(gates, sums, out=np.zeros(gates.shape, dtype=np.float64), where=sums > 0)


def _quantiles(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " q"]:
    if not len(values):
        return np.full(LEVELS, np.nan)
    return np.quantile(values.astype(np.float64), np.linspace(0, 1, LEVELS))
