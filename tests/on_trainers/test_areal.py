"""AReaL's own single-turn workflow: it loads our function by its path and calls it in its pool of processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("areal.api", exc_type=ImportError)
pytest.importorskip("areal.api.cli_args", exc_type=ImportError)
pytest.importorskip("areal.workflow.rlvr", exc_type=ImportError)

from areal import api
from areal.api import cli_args
from areal.workflow import rlvr
from asked import ASKED
from reward_server import Served
from tiny_decoder import tiny_tokenizer

pytest_plugins = ["served_rewards"]
pytestmark = pytest.mark.filterwarnings("default")


class Engine:
    """In the rollout engine's place: one answer, its end token with it."""

    def __init__(self, answer: str) -> None:
        self.ids = tiny_tokenizer().encode(answer + "<|im_end|>", add_special_tokens=False)

    async def agenerate(self, request: Any) -> Any:
        n = len(self.ids)
        return api.ModelResponse(request.input_ids, self.ids, [0.0] * n, [0] * n)


def episode(answer: str, row: dict[str, Any]) -> float:
    workflow = rlvr.RLVRWorkflow("armorm.rl.areal.reward", cli_args.GenerationHyperparameters(), tiny_tokenizer())
    found = asyncio.run(workflow.arun_episode(Engine(answer), row))
    return found["rewards"].item()


def test_an_episode_carries_the_score(served: Served, scored: Callable[..., Any]):
    assert episode("fine, thank you.", {"messages": ASKED, "answer": "4"}) == pytest.approx(
        scored("fine, thank you.").score, abs=1e-5
    )
    assert episode("", {"messages": ASKED}) == -1.0


def test_columns_may_be_called_as_what_areal_hands_over(served: Served, scored: Callable[..., Any]):
    row = {"messages": ASKED, "prompt": "another", "completions": ["one"], "prompt_ids": [1]}
    assert episode("fine", row) == pytest.approx(scored("fine").score, abs=1e-5)
