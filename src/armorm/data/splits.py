"""Splits by prompt: every row of a prompt stands on the same side, in every file.

In: the rows' groups, by name or as the 64-bit numbers in them.  Out: `Split`s, fold numbers, joined groups.
Cost: one hash per group; joining sorts the groups once.

A group's side depends on the group and the seed alone: not on the order of rows, nor on which other data there are.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from jaxtyping import Int64, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from armorm.conversation import prompt_group
from armorm.data.rows import AnyRow, RatedResponse
from armorm.draws import code_of
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


def components(prompts: UInt64[np.ndarray, " n"], given: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Row by row, the group of all rows connected by a prompt group or by a given group (a data set's own column, 0 for none).

    A component is named after the smallest prompt group in it, so the name does not depend on the rows' order.
    """
    has = given != 0
    if not has.any():
        return prompts
    names, prompt = np.unique(prompts, return_inverse=True)
    columns, column = np.unique(given[has], return_inverse=True)
    size = len(names) + len(columns)
    graph = coo_array((np.ones(len(column), bool), (prompt[has], column + len(names))), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][: len(names)]
    _, smallest, own = np.unique(labels, return_index=True, return_inverse=True)  # names are sorted: the first is the smallest
    return names[smallest[own]][prompt]


def computed_group(row: AnyRow) -> str:
    """The prompt group computed from the row's first user turn, whatever group its source gave it."""
    return prompt_group(row.messages if isinstance(row, RatedResponse) else row.context)


def in_turn(groups: UInt64[np.ndarray, " n"], keys: UInt64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The order in which rows are taken: every group's first one by key, then every group's second one, …"""
    order = np.lexsort((keys, groups))
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return np.lexsort((keys, rank))


def group_code(group: str) -> int:
    """The 64-bit number in a prompt group's name; names sort as their numbers do."""
    return int(group[1:], 16)


def group_name(code: int) -> str:
    """The prompt group with a number."""
    return f"g{code:016x}"


def _number(purpose: str, seed: int, group: str) -> int:
    return code_of(f"{purpose}:{seed}:{group}".encode())
