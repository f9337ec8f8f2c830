"""Splits by prompt: every row of a prompt stands on the same side, in every file.

In: the rows' groups.  Out: `Split`s, fold numbers, joined groups.  Cost: one hash per group.

A group's side depends on the group and the seed alone: not on the order of rows, nor on which other data there are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum
from hashlib import blake2b

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from armorm.conversation import prompt_group
from armorm.data.rows import AnyRow, RatedResponse, Row
from armorm.errors import DataError


class Split(StrEnum):
    """What a row is for: fitting (`train`), choosing settings (`validation`), reporting (`test`)."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def split_of(group: str, *, seed: int, validation: float, test: float) -> Split:
    """The side of a group. The fractions are of groups; which groups are test does not depend on `validation`.

    Raises DataError for fractions below 0 or that leave nothing to train on.
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise DataError(f"validation = {validation} and test = {test}: both must be at least 0 and their sum below 1")
    place = _number("split", seed, group) / 2**64
    if place < test:
        return Split.TEST
    return Split.VALIDATION if place < test + validation else Split.TRAIN


def folds_of(group: str, *, seed: int, folds: int) -> int:
    """The fold of a group, 0 … folds − 1, independent of its split. Raises DataError for fewer than 2 folds."""
    if folds < 2:
        raise DataError(f"{folds} folds: cross-validation needs at least 2")
    return _number("fold", seed, group) % folds


def components(prompt_groups: Sequence[str], given: Sequence[str | None]) -> list[str]:
    """Row by row, the group of all rows connected by a prompt group or by a given group (a data set's own column).

    A component is named after the smallest prompt group in it, so the name does not depend on the rows' order.
    """
    if not prompt_groups:
        return []
    prompts = {g: i for i, g in enumerate(sorted(set(prompt_groups)))}
    columns = {g: i for i, g in enumerate(sorted({g for g in given if g is not None}), start=len(prompts))}
    edges = {(prompts[p], columns[g]) for p, g in zip(prompt_groups, given, strict=True) if g is not None}
    ends = np.array(sorted(edges), dtype=np.int64).reshape(-1, 2)
    size = len(prompts) + len(columns)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(size, size))
    labels = connected_components(graph, directed=False)[1]
    names: dict[int, str] = {}
    for group, i in prompts.items():  # in sorted order: the first of a component is its smallest
        names.setdefault(int(labels[i]), group)
    return [names[int(labels[prompts[p]])] for p in prompt_groups]


def join_groups(rows: Sequence[AnyRow]) -> list[str]:
    """Row by row, the component of the row's computed prompt group and of the group that its source gave it, if any."""
    computed = [computed_group(r) for r in rows]
    return components(computed, [r.group if r.group != c else None for r, c in zip(rows, computed, strict=True)])


def computed_group(row: AnyRow) -> str:
    """The prompt group computed from the row's first user turn, whatever group its source gave it."""
    return prompt_group(row.messages if isinstance(row, RatedResponse) else row.context)


def exclude_groups(rows: Sequence[Row], groups: Collection[str]) -> tuple[tuple[Row, ...], int]:
    """The rows whose group, computed or given, is none of `groups` (a benchmark's prompts, say), and how many are dropped."""
    unwanted = frozenset(groups)
    kept = tuple(r for r in rows if r.group not in unwanted and computed_group(r) not in unwanted)
    return kept, len(rows) - len(kept)


def _number(purpose: str, seed: int, group: str) -> int:
    return int.from_bytes(blake2b(f"{purpose}:{seed}:{group}".encode(), digest_size=8).digest(), "big")
