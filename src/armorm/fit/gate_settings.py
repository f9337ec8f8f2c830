"""How a gate is built and trained: numbers with their bounds, for recipes and for Python alike.

In: plain values.  Out: `GateSettings`, checked.  Cost: none; torch is not imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import PlainValidator

from armorm.bounds import is_finite, shown
from armorm.errors import FitError

_WORDS = ((Gt, "gt", "above"), (Ge, "ge", "at least"), (Lt, "lt", "below"), (Le, "le", "at most"))
MOST_STEPS = 10**8
WIDEST = 65_536
"""Of a hidden layer, that of several seeds' gates in one included."""
STRONGEST = 1e6
"""Of `kl` and those beside it: far beyond it a gate is one weight vector, which `inf` says."""

LEAST_SCALE, MOST_SCALE = 1e-3, 1e6
"""Of a β that a training starts from, or that is fitted."""

GateDevice = Literal["auto", "cpu", "cuda"]
"""Where the gate is trained: `auto` is a GPU of NVIDIA's where there is one. It decides speed, and the last digits."""
Weigh = Literal["pairs", "prompts", "sources"]
"""What counts alike in the losses of gates and of the Bradley–Terry rival: every pair, every prompt, every source."""
GatePrecision = Literal["float32", "bfloat16"]
"""What the hidden layers' products are rounded to in training: bfloat16 takes about half the time where the machine knows it."""
Start = Literal["random", "one-weight"]
"""What the gate gives before its first step: random weights, or the best weights that no prompt changes."""
Combine = Literal["best", "mean"]
"""What becomes of several seeds' gates: the best one on validation pairs is kept, or the mean of their logits is the gate."""


def read_kl(given: Any) -> float | Literal["auto", "inf"]:
    """The strength of a penalty as it is kept: a number, or a word where JSON has no number. Raises ValueError."""
    if is_finite(given) and 0 <= given <= STRONGEST:
        return float(given)
    if given in ("auto", "inf"):
        return "auto" if given == "auto" else "inf"
    if isinstance(given, float) and given == math.inf:
        return "inf"
    raise ValueError(f"must be a number from 0 to {STRONGEST:,.0f}, inf (no gate) or auto")


Kl = Annotated[float | Literal["auto", "inf"], PlainValidator(read_kl)]
"""How strongly a gate is held to one weight vector: a number, `inf` (it is that vector) or `auto` (see `choose_kl`)."""


@dataclass(frozen=True)
class GateSettings:
    """The defaults are the paper's where it gives a value.

    `scale_learning_rate`: β's own (None: the same; 0: β stays). `standardize`: inputs are brought to mean 0 and deviation 1,
    which is then folded into the first layer. `patience`: evaluations without a better validation loss before training ends
    (None: never). `seeds`: how many gates are trained, with seed, seed + 1, …; the one with the best validation loss is taken, or
    by `combine` the mean of their logits, which is one gate of `seeds` times the width (and a unit for each). `weigh`: for
    `pair_weights`, by a caller who knows prompts and sources. `start`: with `one-weight` the logits are log w* + MLP(f(x)), where
    w* is the best constant gate, the MLP starts at 0 and β at the constant gate's own. `kl` times the mean KL(gate ‖ w*) is added
    to the loss; `kl_elsewhere` times the same over prompts that have no pairs, which a caller gives. `kl_equal` times
    KL(w* ‖ equal weights) is added to the loss that w* is the best by.

    Raises FitError that names every value out of its bounds.
    """

    hidden: Annotated[int, Gt(0), Le(WIDEST)] = 1024
    hidden_layers: Annotated[int, Ge(0), Le(64)] = 3
    temperature: Annotated[float, Ge(1e-3), Le(1e3)] = 1.0
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    learning_rate: Annotated[float, Gt(0), Le(1)] = 1e-3
    scale_learning_rate: Annotated[float | None, Ge(0), Le(1e3)] = None
    scale_init: Annotated[float, Ge(LEAST_SCALE), Le(MOST_SCALE)] = 100.0
    weight_decay: Annotated[float, Ge(0), Le(100)] = 0.0
    steps: Annotated[int, Gt(0), Le(MOST_STEPS)] = 10_000
    batch_size: Annotated[int, Gt(0), Le(MOST_STEPS)] = 1024
    standardize: bool = True
    evaluate_every: Annotated[int, Gt(0), Le(MOST_STEPS)] = 50
    patience: Annotated[int | None, Gt(0), Le(MOST_STEPS)] = 10
    seeds: Annotated[int, Gt(0), Le(1000)] = 1
    device: GateDevice = "auto"
    precision: GatePrecision = "float32"
    weigh: Weigh = "pairs"
    start: Start = "random"
    kl: Kl = 0.0
    kl_elsewhere: Annotated[float, Ge(0), Le(STRONGEST)] = 0.0
    kl_equal: Annotated[float, Ge(0), Le(STRONGEST)] = 0.0
    combine: Combine = "best"

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        faults = [fault for name, hint in hints.items() for fault in _faults(name, getattr(self, name), hint)]
        if faults:
            raise FitError(f"gate settings: {'; '.join(faults)}")
        object.__setattr__(self, "kl", read_kl(self.kl))
        if self.combine == "mean" and self.seeds * (self.hidden + 1) > WIDEST:
            raise FitError(
                f"gate settings: the mean of {self.seeds} gates of width {self.hidden:,} has a width of more than {WIDEST:,}: "
                "take fewer `seeds`, or a smaller `hidden`"
            )
        if self.learning_rate * self.weight_decay >= 1:
            raise FitError(
                f"gate settings: learning_rate {self.learning_rate:g} times weight_decay {self.weight_decay:g} is 1 or more: "
                "each step would turn the weights about; lower one of them"
            )

    @property
    def anchored(self) -> bool:
        """Whether a gate needs the one weight vector that it starts from or is held to."""
        return self.start == "one-weight" or self.kl != 0 or self.kl_elsewhere > 0

    @property
    def strength(self) -> float:
        """`kl` as a number. Raises FitError for `auto`, which has still to be chosen."""
        if self.kl == "auto":
            raise FitError("`kl` is auto: choose a strength first (`choose_kl`), or give a number")
        return math.inf if self.kl == "inf" else float(self.kl)


def _faults(name: str, value: Any, hint: Any) -> Iterator[str]:
    if hint == Kl:
        try:
            read_kl(value)
        except ValueError as error:
            yield f"{name} {error}, got {shown(value)}"
        return
    if get_origin(hint) is Literal:
        if value not in (words := get_args(hint)):
            yield f"{name} must be one of {', '.join(words)}, got {shown(value)}"
        return
    bounds, whole = getattr(hint, "__metadata__", ()), hint.__args__[0] if hasattr(hint, "__args__") else hint
    if not bounds or (value is None and type(None) in getattr(whole, "__args__", ())):
        return
    wanted, kind = (Real, "a number") if "float" in str(whole) else (Integral, "a whole number")
    if isinstance(value, bool) or not isinstance(value, wanted):
        yield f"{name} must be {kind}, got {shown(value)}"
        return
    for bound in bounds:
        bounded, end, word = next((k, getattr(bound, field), w) for k, field, w in _WORDS if isinstance(bound, k))
        if not {Gt: value > end, Ge: value >= end, Lt: value < end, Le: value <= end}[bounded]:  # NaN is within no bounds
            yield f"{name} must be {word} {end:,}, got {shown(value)}"
