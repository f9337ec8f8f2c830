"""What a run costs, on paper: operations, bytes on disk and in memory of each stage, from sizes alone.

In: `Sizes` of a recipe's data, a `Decoder`, rates of a machine.  Out: `Work` by stage, seconds, hours of published GPUs.
The formulas stand in docs/performance.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Count = int | float
Precision = Literal["float64", "float32", "decoder"]
"""In what a stage computes; "decoder" is the decoder's own type on its own device."""
IDLE = 500_000_000
"""Bytes of a process that has imported what it needs."""
NARROW = 2048
"""Columns up to which gram matrices are summed in double precision and solved by eigenvectors."""
DIRECTIONS = 512
ITERATIONS = 100
"""Passes that the Bradley–Terry model's solver makes over its pairs, a guess."""
STRENGTHS = 8
"""Of the Bradley–Terry model."""
UTILISATION = 0.4
"""The share of a GPU's published rate that is assumed."""


@dataclass(frozen=True)
class Decoder:
    """A decoder by its size; `parameters` are those of its blocks, `others` those of embeddings and final norm."""

    name: str
    parameters: int
    layers: int
    width: int
    bytes_each: int = 2
    others: int = 0

    @property
    def bytes(self) -> int:
        return (self.parameters + self.others) * self.bytes_each


@dataclass(frozen=True)
class Gpu:
    """A GPU by its maker's data sheet: dense operations a second in bfloat16, bytes of memory."""

    name: str
    rate: Count
    memory: Count


DECODERS = (Decoder("8B", 6_980_000_000, 32, 4096), Decoder("70B", 68_450_000_000, 80, 8192))
"""Llama 3's sizes."""
GPUS = (Gpu("A100 80 GB", 312e12, 80e9), Gpu("H100 SXM", 989e12, 80e9), Gpu("L40S", 362e12, 48e9))


@dataclass(frozen=True)
class GateSizes:
    """The gate's: width and number of its hidden layers, steps, pairs a step, gates that are trained (short trainings by which a
    strength is chosen as parts of one), evaluations."""

    hidden: int
    layers: int
    steps: int
    batch: int
    seeds: Count
    evaluations: int

    def parameters(self, prompt: int, objectives: int) -> int:
        """Weights of its layers."""
        widths = [prompt, *[self.hidden] * self.layers, objectives]
        return sum(a * b for a, b in pairwise(widths))


@dataclass(frozen=True)
class Sizes:
    """Rated answers, pairs, answers of benchmarks, padded copies; `tokens` that the decoder runs over, `length` of a
    conversation.

    `stored_answer` and `stored_prompt` are numbers kept for each, `width` of a candidate feature, `prompt` of the gate's.
    """

    rated: int
    pairs: int
    benched: int
    benched_prompts: int
    tokens: Count
    length: Count
    stored_answer: int
    stored_prompt: int
    bytes_each: int
    width: int
    prompt: int
    candidates: int
    objectives: int
    patterns: int
    folds: int
    strengths: int
    validation: Count
    gate: GateSizes
    left_out: int = 0
    """Sources that everything made of pairs is made again without."""
    padded: int = 0

    @property
    def answers(self) -> int:
        return self.rated + 2 * self.pairs + self.benched + 2 * self.padded

    @property
    def prompts(self) -> int:
        return self.rated + self.pairs + self.benched_prompts + self.padded


@dataclass(frozen=True)
class Work:
    """A stage: operations by precision, bytes it reads, leaves on disk, has in memory at most; None: the decoder decides it."""

    stage: str
    operations: Mapping[Precision, Count] | None
    reads: Count
    disk: Count
    memory: Count | None

    def seconds(self, rates: Mapping[str, Count]) -> Count | None:
        """Operations and bytes at a machine's rates ("read": bytes a second); None where that is not known."""
        if self.operations is None or any(precision not in rates for precision in self.operations):
            return None
        return sum(count / rates[precision] for precision, count in self.operations.items()) + self.reads / rates["read"]


def decoder_operations(decoder: Decoder, tokens: Count, length: Count) -> Count:
    """Two for each weight and token, and causal attention over conversations of a length: T (2 N + 2 L d t)."""
    return tokens * (2 * decoder.parameters + 2 * decoder.layers * decoder.width * length)


def work_of(sizes: Sizes, decoder: Decoder | None) -> list[Work]:
    """Every stage's work, in order; without a decoder, its part is not known."""
    return [
        _features(sizes, decoder),
        _probe(sizes),
        _uncertainty(sizes),
        _debias(sizes),
        _gate(sizes),
        _preference(sizes),
        _model(sizes, decoder),
        _bench(sizes),
    ]


def gpu_hours(decoder: Decoder, gpu: Gpu, sizes: Sizes) -> float:
    """Hours of one GPU for the features, were the decoder on it, at `UTILISATION`."""
    return decoder_operations(decoder, sizes.tokens, sizes.length) / (UTILISATION * gpu.rate) / 3600


def gpus_needed(decoder: Decoder, gpu: Gpu) -> int:
    """How many hold the decoder's weights with a fifth to spare."""
    return math.ceil(1.2 * decoder.bytes / gpu.memory)


def about(value: Count) -> float:
    """Two significant digits."""
    return float(f"{value:.1e}")


# -- the stages ---------------------------------------------------------------------------------------------------------------


def _features(s: Sizes, decoder: Decoder | None) -> Work:
    disk = (s.answers * s.stored_answer + s.prompts * s.stored_prompt) * s.bytes_each
    if decoder is None:
        return Work("features", None, 0, disk, None)
    operations: dict[Precision, Count] = {"decoder": decoder_operations(decoder, s.tokens, s.length)}
    return Work("features", operations, 0, disk, IDLE + decoder.bytes)


def _probe(s: Sizes) -> Work:
    d, grams = s.width, s.patterns * (2 * s.folds + 1)  # each without a fold: to choose and to refit; and the whole
    solved = grams * (9 * d**3 if d <= NARROW else s.strengths * d**3 / 3)
    summed = s.rated * d * d + 2 * s.rated * d * s.objectives
    each: dict[Precision, Count] = {"float64": summed + solved} if d <= NARROW else {"float32": summed, "float64": solved}
    operations = {precision: s.candidates * count for precision, count in each.items()}
    disk = s.candidates * s.patterns * s.folds * 4 * d * (d + 1)
    reads = s.candidates * s.rated * d * s.bytes_each
    return Work("probe", operations, reads, disk, IDLE + (s.folds + 5) * 8 * d * d)


def _uncertainty(s: Sizes) -> Work:
    d, kept = s.width, min(DIRECTIONS, s.width)
    operations: dict[Precision, Count] = {"float64": s.patterns * 9 * d**3 + 2 * s.rated * d * kept}
    return Work("uncertainty", operations, s.rated * d * s.bytes_each, s.patterns * 8 * d * kept, IDLE + 4 * 8 * d * d)


def _debias(s: Sizes) -> Work:
    operations: dict[Precision, Count] = {"float64": 4 * s.pairs * s.width * s.objectives}
    return Work("debias", operations, 2 * s.pairs * s.width * s.bytes_each, 0, IDLE + 4 * s.pairs * s.objectives * 8)


def _gate(s: Sizes) -> Work:
    g, weights = s.gate, s.gate.parameters(s.prompt, s.objectives)
    trained = g.seeds * (6 * g.steps * g.batch + 2 * g.evaluations * s.validation * s.pairs) * weights
    rewards = 4 * s.pairs * s.width * s.objectives
    seen = g.seeds * (g.steps * g.batch + g.evaluations * s.validation * s.pairs) * s.prompt + 2 * s.pairs * s.width
    memory = IDLE + 16 * weights + 4 * s.pairs * s.objectives * 8 + 8 * g.batch * (s.prompt + g.layers * g.hidden)
    return Work("gate", {"float32": 2 * trained, "float64": 2 * rewards}, 2 * seen * s.bytes_each, 2 * 4 * weights, memory)


def _preference(s: Sizes) -> Work:
    pairs, weights = s.validation * s.pairs, s.gate.parameters(s.prompt, s.objectives)
    operations: dict[Precision, Count] = {"float32": 2 * pairs * weights, "float64": 4 * pairs * s.width * s.objectives}
    return Work("preference", operations, pairs * (2 * s.width + s.prompt) * s.bytes_each, 0, IDLE)


def _model(s: Sizes, decoder: Decoder | None) -> Work:
    weights = s.gate.parameters(s.prompt, s.objectives)
    operations: dict[Precision, Count] = {"float32": 2 * s.pairs * weights, "float64": 4 * s.pairs * s.width * s.objectives}
    reads, size = 2 * s.pairs * (s.width + s.prompt) * s.bytes_each, decoder.bytes if decoder else 0
    return Work("model", operations, reads, size + 4 * weights, IDLE + size if decoder else None)


def _bench(s: Sizes) -> Work:
    fitted = s.candidates * STRENGTHS * ITERATIONS * 4 * s.pairs * s.width
    reads = (s.candidates * ITERATIONS * 2 * s.pairs + s.benched) * s.width * s.bytes_each
    again: dict[Precision, Count] = {"float64": (1 + s.left_out) * fitted}
    if not s.left_out:
        return Work("bench", again, reads, 0, IDLE + 4 * s.pairs * s.objectives * 8)
    gate = _gate(s)
    assert gate.operations is not None
    operations = {kind: again.get(kind, 0) + s.left_out * count for kind, count in gate.operations.items()}
    return Work("bench", operations, (1 + s.left_out) * reads + s.left_out * gate.reads, 0, gate.memory)
