"""What rows are made of, by name: patterns of sources, and what is wrong with a recipe's entries before anything is read.

In: names.  Out: whether a name is meant; a sentence for each fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal

from armorm.data.made.kinds import KindName

RowKind = Literal["ratings", "pairs"]


@dataclass(frozen=True, slots=True)
class MadeEntry:
    """An entry of a recipe: what is made (`kinds`), of which sources (names or patterns), at most `cap` rows of each kind; for
    pairs, which `share` of all pairs' weight these have together. `names` are the sources that are made, one of each kind."""

    rows: RowKind
    kinds: tuple[KindName, ...]
    of: tuple[str, ...]
    name: str = "made"
    cap: int | None = None
    share: float | None = None

    @property
    def names(self) -> dict[str, KindName]:
        return {f"{self.name}-{kind}": kind for kind in self.kinds}

    @property
    def most(self) -> int | None:
        """Answers that are changed: rated ones come in twos."""
        return self.cap if self.cap is None or self.rows == "pairs" else self.cap // 2


@lru_cache(maxsize=4096)
def is_named(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the names, which may be patterns, is this one's."""
    return bool(name) and any(name == one or fnmatchcase(name, one) for one in patterns)


def made_faults(
    entries: Sequence[MadeEntry], natural: Mapping[RowKind, Sequence[str]] | None, harmless: Sequence[str]
) -> Iterator[str]:
    """What is wrong with the entries. `natural`: the names of the other sources, None where they are not known yet."""
    own = {name for entry in entries for name in entry.names}
    for entry in entries:
        if entry.rows == "ratings" and entry.share is not None:
            yield "ratings: `share` is of the weight of pairs: give it there"
        if entry.most == 0:
            yield "ratings: what is made needs a `cap` of 2 or more: an answer gives two rows"
        if natural is None:
            continue
        known = sorted({name for names in natural.values() for name in names})
        for name in entry.of:
            if not any(is_named(one, (name,)) for one in known):
                there = "is made itself" if any(is_named(one, (name,)) for one in own) else "is none of the ratings or pairs"
                yield f"{entry.rows}: made of {name!r}, which {there}: name some of {', '.join(known)}"
    if any("compliance" in entry.kinds for entry in entries) and not harmless:
        yield "harmless: missing; compliance is made of harmless prompts alone: name the sources or sections that have such"
    if (whole := sum(entry.share or 0 for entry in entries)) >= 1:
        yield f"pairs: the shares of what is made come to {whole:g}: leave some of the weight to the other pairs"
