"""Token sequences laid out as a tree: what several begin with stands there once, whatever it is (a system turn, a prompt).

In: token ids of sequences.  Out: `Tree`: all branches in one row, and where each sequence's tokens stand in it.
Cost: a sort of the sequences; their first tokens are compared as far as they agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]
Path = tuple[range, ...]
"""Where a sequence's tokens stand in a row, piece by piece."""
LEAST = 8
"""Fewer tokens in common are read once for each sequence: a branch costs a little too."""


@dataclass(frozen=True, slots=True)
class Branch:
    """Tokens that stand at [start, stop) of the row, behind `before` tokens of the branches that they follow."""

    start: int
    stop: int
    before: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Tree:
    """Branches in one row, each behind those it follows: depth first, so the last `before` tokens of its path are still at hand.

    `paths` gives the place of each sequence, in the order in which they came in.
    """

    ids: Ids
    branches: tuple[Branch, ...]
    paths: tuple[Path, ...]

    @property
    def positions(self) -> list[int]:
        """Each token's place in its own sequence."""
        return [place for b in self.branches for place in range(b.before, b.before + len(b))]


def plant(sequences: Sequence[Ids], *, share: bool = True) -> Tree:
    """A tree of sequences. Without `share` each is a branch of its own."""
    ids, branches, paths = list[int](), list[Branch](), [Path()] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    todo = [(order, Path(), 0)] if share else [([i], Path(), 0) for i in reversed(order)]
    while todo:  # no recursion: of many answers each may begin with the one before
        rows, path, before = todo.pop()
        first, common = sequences[rows[0]], common_start(sequences[rows[0]], sequences[rows[-1]])
        own = common > before and (len(sequences[rows[-1]]) == common or common - before >= LEAST)
        if own:
            branch = Branch(len(ids), len(ids) + common - before, before)
            ids += first[before:common]
            branches.append(branch)
            path, before = (*path, range(branch.start, branch.stop)), common
        ended = [i for i in rows if len(sequences[i]) == before]
        for i in ended:
            paths[i] = path
        parts = list(_forks(sequences, rows[len(ended) :], common))
        todo += [(part, path, before) for part in reversed(parts)]
    return Tree(tuple(ids), tuple(branches), tuple(paths))


def common_start(a: Ids, b: Ids) -> int:
    """How many tokens two sequences begin with alike."""
    most = min(len(a), len(b))
    if a[:most] == b[:most]:
        return most
    return next(i for i in range(most) if a[i] != b[i])


def part_of(path: Path, start: int, stop: int) -> Path:
    """The pieces of a path that hold its tokens [start, stop)."""
    pieces = list[range]()
    for piece in path:
        if inside := piece[max(start, 0) : max(stop, 0)]:
            pieces.append(inside)
        start, stop = start - len(piece), stop - len(piece)
    return tuple(pieces)


def place_of(path: Path, number: int) -> int:
    """Where a path's token with this number stands."""
    for piece in path:
        if number < len(piece):
            return piece[number]
        number -= len(piece)
    raise IndexError(number)


def _forks(sequences: Sequence[Ids], rows: Sequence[int], at: int) -> Iterator[list[int]]:
    # Rows that go on alike behind `at` tokens; one that ends there goes on like none.
    part = list[int]()
    for i in rows:
        if part and sequences[i][at : at + 1] != sequences[part[-1]][at : at + 1]:
            yield part
            part = []
        part.append(i)
    if part:
        yield part
