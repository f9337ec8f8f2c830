"""How long a conversation a decoder with a head of its own reads.

In: a model's config, the length that was asked for.  Out: tokens.
"""

from __future__ import annotations

from typing import Any

from armorm.errors import BackboneError

UNKNOWN = 4096
"""Where a config names no number of positions."""


def longest_of(config: Any, max_tokens: int | None) -> int:
    """The most tokens of a conversation: what was asked for, else all positions."""
    return int(max_tokens or _positions(config) or UNKNOWN)


def check_positions(config: Any, max_tokens: int | None) -> None:
    """Raises BackboneError for more tokens than the decoder has positions."""
    positions = _positions(config)
    if max_tokens is not None and positions is not None and max_tokens > positions:
        raise BackboneError(f"max_tokens is {max_tokens}, the decoder has {positions} positions: use at most that many")


def _positions(config: Any) -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)
