"""What the trainers' tests share: a server of rewards that the environment names, and what the tiny model's scores are.

In: the tiny model of tests/conftest.py.  Out: fixtures; a test module lists this one in `pytest_plugins`.
Cost: one server for a module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asked import ASKED
from reward_server import Served, reward_server

from armorm.model.reward_model import RewardModel
from armorm.rl.conversations import joined
from armorm.scoring.score import Score


@pytest.fixture(scope="module")
def serving(tiny_model: RewardModel) -> Iterator[Served]:
    with reward_server(tiny_model) as served:
        yield served


@pytest.fixture
def served(serving: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The server, named by the environment, which names nothing else."""
    for name in ("PROFILE", "PART", "OBJECTIVES"):
        monkeypatch.delenv(f"ARMORM_REWARD_{name}", raising=False)
    monkeypatch.delenv("ARMORM_UNSCORED", raising=False)
    monkeypatch.setenv("ARMORM_REWARD_MODEL", serving.url)
    return serving


@pytest.fixture(scope="session")
def scored(tiny_model: RewardModel) -> Callable[..., Score]:
    """The model's own score of an answer to ASKED, or to other turns."""

    def score(answer: str, prompt: Any = None) -> Score:
        return tiny_model.score(joined(ASKED if prompt is None else prompt, answer))

    return score
