"""How answers were read, in sentences: what was cut to the model's length, what its chat template left out.

In: counts.  Out: sentences for the terminal and pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from armorm.numbers import count, counts


def reading_sentences(
    truncated: int, asked: int, max_tokens: int | None, notes: Mapping[str, int], *, what: str = "conversations"
) -> Iterator[str]:
    """What a reader of scores has to know of how the answers were read; nothing where all were read whole."""
    if truncated:
        bound = f"{count(max_tokens)} tokens" if max_tokens else "the model's length"
        verb = "was" if truncated == 1 else "were"
        yield f"{count(truncated)} of {count(asked)} {what} {verb} cut to {bound}: the oldest part is lost to the score."
    if found := counts(notes):
        yield f"What the chat template left out or could not keep apart, by {what}: {found}."
