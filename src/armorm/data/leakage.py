"""Which prompts are also in a benchmark: the same after normalising, or nearly the same by their word shingles.

In: a benchmark's prompts, then any prompt.  Out: a `Match` with its similarity, or None.
Cost: some 5,000 prompts a second to ask for, fewer to add; about 15 kB a benchmark prompt.

Exact is the same `prompt_group`. Near is a Jaccard similarity of the sets of three-word shingles of at least the threshold:
MinHash signatures find the candidates, the sets themselves decide. Everything is seeded; the same prompts give the same answers.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH
from jaxtyping import UInt32

from armorm.conversation import Message, prompt_group
from armorm.data.rows import BenchmarkItem
from armorm.errors import DataError

THRESHOLD = 0.6
SHINGLE = 3
PERMUTATIONS = 128
SEED = 1
RECALL = 0.99
"""How probable it must be that a prompt at the threshold becomes a candidate."""
EXCERPT = 200
MOST_VERIFIED = 50


@dataclass(frozen=True, slots=True)
class Match:
    """A benchmark's prompt that a prompt is (`exact`) or resembles; `prompt` is its beginning."""

    benchmark: str
    id: str
    prompt: str
    similarity: float
    exact: bool


@dataclass(frozen=True)
class Sketch:
    """What is compared of a prompt: its group, the hashes of its shingles (sorted, each once), and their MinHash."""

    group: str
    shingles: UInt32[np.ndarray, " s"]
    minhash: MinHash


def sketch(prompt: str) -> Sketch:
    """The sketch of a prompt's text (its first user turn)."""
    hashes = sorted({zlib.crc32(s) for s in shingles(prompt)})
    minhash = _EMPTY.copy()
    minhash.update_batch(hashes)
    return Sketch(prompt_group([Message(role="user", content=prompt)]), np.array(hashes, dtype=np.uint32), minhash)


def shingles(prompt: str) -> set[bytes]:
    """Every run of three words, letter case and punctuation aside; a shorter prompt is one shingle, one without words has none.

    In scripts that put no space between words each character counts as a word.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", prompt).casefold())
    ends = range(SHINGLE, len(words) + 1)
    runs = [words[end - SHINGLE : end] for end in ends] or ([words] if words else [])
    return {" ".join(run).encode("utf-8", "replace") for run in runs}


def first_prompt(messages: Iterable[Message]) -> str:
    """The text that leakage is about: the first user turn, as `prompt_group` has it."""
    return next((m["content"] for m in messages if m["role"] == "user"), "")


def check_threshold(threshold: float) -> None:
    """Raises DataError for a similarity that is none: above 0 and up to 1."""
    if not 0 < threshold <= 1:
        raise DataError(f"the threshold of near-duplicates is {threshold}: it must be above 0 and at most 1")


class PromptIndex:
    """The prompts of one benchmark. `threshold`: the least similarity of a near-duplicate, above 0 and up to 1."""

    def __init__(self, benchmark: str, *, threshold: float = THRESHOLD) -> None:
        check_threshold(threshold)
        self.benchmark, self.threshold = benchmark, threshold
        self._groups: dict[str, int] = {}
        self._prompts: list[tuple[str, str, UInt32[np.ndarray, " s"]]] = []
        self._signatures: list[Any] = []
        self._lsh = MinHashLSH(num_perm=PERMUTATIONS, params=bands(threshold))

    @classmethod
    def of(cls, benchmark: str, items: Iterable[BenchmarkItem], *, threshold: float = THRESHOLD) -> PromptIndex:
        """All prompts of a benchmark's items."""
        index = cls(benchmark, threshold=threshold)
        for item in items:
            index.add(item.id, first_prompt(item.context))
        return index

    def __len__(self) -> int:
        return len(self._prompts)

    def add(self, item: str, prompt: str) -> None:
        """A further prompt; one of a known group adds nothing."""
        found = sketch(prompt)
        if found.group in self._groups:
            return
        place = self._groups[found.group] = len(self._prompts)
        self._prompts.append((item, excerpt(prompt), found.shingles))
        self._signatures.append(found.minhash.hashvalues)
        if found.shingles.size:
            self._lsh.insert(place, found.minhash, check_duplication=False)

    def query(self, prompt: str | Sketch) -> Match | None:
        """The benchmark's prompt that this one is, else the one most like it at or above the threshold, else None."""
        asked = sketch(prompt) if isinstance(prompt, str) else prompt
        if (place := self._groups.get(asked.group)) is not None:
            return self._match(place, 1.0, exact=True)
        found = [(self._similarity(asked, p), -p) for p in self._candidates(asked)]
        best, place = max(found, default=(0.0, 0))
        return self._match(-place, best, exact=False) if best >= self.threshold else None

    def _candidates(self, asked: Sketch) -> list[int]:
        # A template that half the benchmark shares makes a candidate of it all: only the best by signature are looked at.
        places = sorted(self._lsh.query(asked.minhash)) if asked.shingles.size else []
        if len(places) <= MOST_VERIFIED:
            return places
        same = [int(np.count_nonzero(self._signatures[p] == asked.minhash.hashvalues)) for p in places]
        return [places[i] for i in np.argsort(-np.array(same), kind="stable")[:MOST_VERIFIED]]

    def _similarity(self, asked: Sketch, place: int) -> float:
        known = self._prompts[place][2]
        both = np.intersect1d(asked.shingles, known, assume_unique=True).size
        return both / (asked.shingles.size + known.size - both)

    def _match(self, place: int, similarity: float, *, exact: bool) -> Match:
        item, prompt, _ = self._prompts[place]
        return Match(self.benchmark, item, prompt, similarity, exact)


def bands(threshold: float) -> tuple[int, int]:
    """Bands and rows of each: the longest rows with which a prompt at the threshold becomes a candidate with `RECALL`."""
    for rows in range(16, 1, -1):
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL:
            return PERMUTATIONS // rows, rows
    return PERMUTATIONS, 1


def excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: 4 * EXCERPT].split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def _as_it_is(number: int) -> int:
    return number


_EMPTY = MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=_as_it_is, scheme="affine32")
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
