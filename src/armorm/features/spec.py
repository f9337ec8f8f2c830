"""Which hidden states make a feature: layers, poolings, and how several are joined.

In: text such as "final:last", "18:mean" or "18:mean+24:last".  Out: `FeatureSpec`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from armorm.errors import RecipeError

FINAL = "final"


class Pooling(StrEnum):
    """Which tokens of a segment a feature reads.

    For a response: `last` is the conversation's very last token (the paper's), `closing` the first token behind the
    answer's text (`<|im_end|>`, `<|eot_id|>`), `mean` the average over the answer's own tokens.
    For a prompt: `last` is the last token of the rendered prompt (the paper's), `mean` the average over the prompt, `turn` the
    first token of the header between question and answer: the one that ends the user's turn (the released model's).
    """

    LAST = "last"
    CLOSING = "closing"
    MEAN = "mean"
    TURN = "turn"


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One layer and one pooling. Layer n is the residual stream after block n; "final" is the last block after the final norm."""

    layer: str
    pooling: Pooling

    def __str__(self) -> str:
        return f"{self.layer}:{self.pooling}"


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One or several parts; a feature is their concatenation, in this order."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.parts))

    @classmethod
    def parse(cls, text: str) -> FeatureSpec:
        """From "layer:pooling[+layer:pooling…]". Raises RecipeError for anything else."""
        return cls(tuple(_part(p) for p in text.split("+")))


def _part(text: str) -> Part:
    layer, _, pooling = text.strip().partition(":")
    good_layer = layer == FINAL or (layer.isdecimal() and int(layer) > 0)
    if not good_layer or pooling not in set(Pooling):
        raise RecipeError(
            f"feature {text!r}: expected LAYER:POOLING with a layer number from 1 or 'final', "
            f"and a pooling of {', '.join(Pooling)}; join several with '+'"
        )
    return Part(FINAL if layer == FINAL else str(int(layer)), Pooling(pooling))


def layers_of(parts: Iterable[Part]) -> tuple[str, ...]:
    """The layers that parts read, once, in the order of the decoder."""
    return tuple(sorted({part.layer for part in parts}, key=lambda layer: (layer == FINAL, 0 if layer == FINAL else int(layer))))


def parts_of(specs: Iterable[FeatureSpec]) -> tuple[Part, ...]:
    """Every part that the specs need, once, in a stable order."""
    return tuple(sorted({part for spec in specs for part in spec.parts}))
