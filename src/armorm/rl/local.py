"""Rows of a reward model on this machine.

In: a model folder or hub id.  Out: `LocalModel`, a `Source`.  Cost: one pass of the decoder over each batch, one batch at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import torch

from armorm.errors import BackboneError
from armorm.model.scorer import ModelScorer
from armorm.rl import rewarder
from armorm.rl.rewarder import Row, finite
from armorm.rl.settings import Part, Settings
from armorm.scoring.profile import Profile
from armorm.scoring.table import ScoreTable


class LocalModel:
    """A model that is loaded once, on a GPU where there is one.

    In a process that was forked from one with torch in it, torch runs on one thread: its threads don't survive a fork, and
    waiting for them would never end. Raises what `ModelScorer.load` raises.
    """

    def __init__(self, settings: Settings) -> None:
        if rewarder.forked_with_torch:
            torch.set_num_threads(1)
        facts = settings.profile_facts()
        profile = None if facts is None else Profile.from_json(facts)
        self._scorer = ModelScorer.load(settings.model, profile=profile, batch_tokens=settings.batch_tokens)
        self._lock = Lock()

    def names(self, part: Part) -> tuple[str, ...]:
        basis = self._scorer.model.basis
        if part != "contributions":
            return basis.objectives.names
        (steering,) = basis.bind(self._scorer.profile or self._scorer.model.profile, 1)
        return (*basis.terms, *(() if steering is None else steering.labels))

    def score(self, conversations: Sequence[Any]) -> list[Row | str]:
        with self._lock:
            found = self._scored(conversations)
        if found and all(isinstance(row, BackboneError) for row in found):
            raise found[0]  # type: ignore[misc]  # what holds for every row is no row's fault
        return [str(row) if isinstance(row, BackboneError) else row for row in found]

    def _scored(self, conversations: Sequence[Any]) -> list[Row | str | BackboneError]:
        # A row whose features overflow stops its whole batch: it is found by halves.
        try:
            return [*rows_of(self._scorer.engine.score(conversations, profile=self._scorer.profile))]
        except BackboneError as error:
            if len(conversations) == 1:
                return [error]
            half = len(conversations) // 2
            return [*self._scored(conversations[:half]), *self._scored(conversations[half:])]


def rows_of(table: ScoreTable) -> list[Row | str]:
    """A table's rows, or what is wrong with them."""
    names, terms = table.basis.objectives.names, table.term_names
    rewards, debiased, contributions = table.rewards.tolist(), _debiased(table), table.contributions.tolist()
    return [
        fault
        if fault is not None
        else finite(
            Row(
                float(table.scores[i]),
                {
                    "rewards": dict(zip(names, rewards[i], strict=True)),
                    "debiased": dict(zip(names, debiased[i], strict=True)),
                    "contributions": dict(zip(terms, contributions[i], strict=True)),
                },
            )
        )
        for i, fault in enumerate(table.faults)
    ]


def _debiased(table: ScoreTable) -> list[list[float]]:
    # What the gate weighs: gate · debiased is the score, constraints aside. One profile holds for all rows here.
    steering = next((one for one in table.steerings if one is not None), None)
    matrix = table.basis.transform if steering is None else steering.matrix(table.basis.transform)
    found: list[list[float]] = (table.trained.terms.double() @ matrix.double()).tolist()
    return found
