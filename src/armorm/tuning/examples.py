"""Rows → token ids, as the trainers read them: the same tokens that the features are read from.

In: pairs or rated responses, a `Renderer`.  Out: `datasets.Dataset`s.  Cost: one tokenisation per text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from datasets import Dataset

from armorm.data.rows import PreferencePair, RatedResponse
from armorm.errors import ConversationError, FitError
from armorm.objectives import Objectives
from armorm.rendering import Renderer
from armorm.rivals.pairwise import PairRenderer


def order_examples(pairs: Sequence[PreferencePair], renderer: Renderer) -> Dataset:
    """Columns `chosen_ids` and `rejected_ids`, for a Bradley–Terry loss."""

    def rows() -> Iterable[dict[str, Any]]:
        for pair in pairs:
            chosen, rejected = (_ids(renderer, pair.conversation(a)) for a in (pair.chosen, pair.rejected))
            if chosen and rejected:
                yield {"chosen_ids": chosen, "rejected_ids": rejected}

    return _dataset(rows())


def rating_examples(rows: Sequence[RatedResponse], objectives: Objectives, renderer: Renderer) -> Dataset:
    """Columns `input_ids`, `group` and `labels` [k]: ratings on the [0, 1] scale, NaN where there is none."""

    def examples() -> Iterable[dict[str, Any]]:
        for row in rows:
            if ids := _ids(renderer, row.messages):
                labels = objectives.to_unit(objectives.row(row.ratings)).tolist()
                yield {"input_ids": ids, "labels": labels, "group": row.group}

    return _dataset(examples())


def comparison_examples(pairs: Sequence[PreferencePair], renderer: PairRenderer) -> Dataset:
    """Columns `input_ids` and `labels`, of each pair both orders: [2 t] token ids, −100 everywhere but at the verdict."""

    def rows() -> Iterable[dict[str, Any]]:
        for pair in pairs:
            chosen, rejected = pair.conversation(pair.chosen), pair.conversation(pair.rejected)
            try:
                orders = (
                    renderer.training_example(chosen, rejected, "A"),
                    renderer.training_example(rejected, chosen, "B"),
                )
            except ConversationError:
                continue
            yield {"input_ids": [list(o.input_ids) for o in orders], "labels": [list(o.labels) for o in orders]}

    return _dataset(rows())


def _ids(renderer: Renderer, conversation: Any) -> list[int]:
    try:
        return list(renderer.render(conversation).ids)
    except ConversationError:  # a template may refuse what others take, e.g. a system message
        return []


def _dataset(rows: Iterable[dict[str, Any]]) -> Dataset:
    found = list(rows)
    if not found:
        raise FitError("no row is left that the chat template takes: check the backbone's template")
    return Dataset.from_list(found)
