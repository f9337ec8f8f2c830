"""How a gate is built and trained: numbers with their bounds, for recipes and for Python alike.

In: plain values.  Out: `GateSettings`, checked.  Cost: none; torch is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, Gt, Lt

from armorm.errors import FitError

_WORDS = ((Gt, "gt", "above"), (Ge, "ge", "at least"), (Lt, "lt", "below"))


@dataclass(frozen=True)
class GateSettings:
    """The defaults are the paper's where it gives a value.

    `scale_learning_rate`: β's own (None: the same; 0: β stays). `standardize`: inputs are brought to mean 0 and deviation 1,
    which is then folded into the first layer. `patience`: evaluations without a better validation loss before training ends
    (None: never). `seeds`: how many gates are trained, with seed, seed + 1, …; the one with the best validation loss is taken.

    Raises FitError that names every value out of its bounds.
    """

    hidden: Annotated[int, Gt(0)] = 1024
    hidden_layers: Annotated[int, Ge(0)] = 3
    temperature: Annotated[float, Gt(0)] = 1.0
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    scale_learning_rate: Annotated[float | None, Ge(0)] = None
    scale_init: float = 100.0
    weight_decay: Annotated[float, Ge(0)] = 0.0
    steps: Annotated[int, Gt(0)] = 10_000
    batch_size: Annotated[int, Gt(0)] = 1024
    standardize: bool = True
    evaluate_every: Annotated[int, Gt(0)] = 50
    patience: Annotated[int | None, Gt(0)] = 10
    seeds: Annotated[int, Gt(0)] = 1

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        faults = [fault for name, hint in hints.items() for fault in _faults(name, getattr(self, name), hint)]
        if faults:
            raise FitError(f"gate settings: {'; '.join(faults)}")


def _faults(name: str, value: Any, hint: Any) -> Iterator[str]:
    bounds = getattr(hint, "__metadata__", ()) if value is not None else ()
    for bound in bounds:
        kind, end, word = next((k, getattr(bound, field), w) for k, field, w in _WORDS if isinstance(bound, k))
        if not {Gt: value > end, Ge: value >= end, Lt: value < end}[kind]:
            yield f"{name} must be {word} {end}, got {value}"
