"""OpenRLHF's own single-turn executor: it loads our file, or asks our server's route, and keeps what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("openrlhf.utils.agent")
pytest.importorskip("openrlhf.trainer.ppo_utils.experience")

import served as processes
from asked import OBJECTIVES, TEMPLATED
from openrlhf.utils import agent
from reward_server import Served
from tiny_decoder import tiny_tokenizer

import armorm.rl.openrlhf as ours
from armorm.model.reward_model import RewardModel

pytest_plugins = ["served_rewards"]
pytestmark = pytest.mark.filterwarnings("default")


class Engine:
    """In vLLM's place: the next answer, its end token with it."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = iter(answers)

    async def generate(self, prompt_ids: list[int], params: Any, multi_modal_data: Any = None) -> Any:
        ids = tiny_tokenizer().encode(next(self.answers) + "<|im_end|>", add_special_tokens=False)
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, text="", finish_reason="stop", logprobs=None)])


def rolled_out(executor: Any, answers: list[str]) -> list[dict[str, Any]]:
    """One rollout for each answer, all at once, as OpenRLHF's workers run them."""
    params, engine = SimpleNamespace(max_tokens=16, logprobs=None), Engine(answers)

    async def run() -> list[dict[str, Any]]:
        given = (params, 128, tiny_tokenizer(), engine)
        return await asyncio.gather(*(executor.execute(TEMPLATED, "label", *given) for _ in answers))

    return asyncio.run(run())


ANSWERS = ["fine, thank you.", "return x", ""]


def test_the_executor_loads_our_file_and_keeps_its_numbers(served: Served, scored: Callable[..., Any]):
    executor = agent.SingleTurnAgentExecutor(str(ours.__file__))
    assert executor.reward_func is not None
    outputs = rolled_out(executor, ANSWERS)
    want = [*(scored(answer).score for answer in ANSWERS[:2]), -1.0]
    assert [row["reward"].tolist() for row in outputs] == [[pytest.approx(x, abs=1e-5)] for x in want]
    assert [row["scores"].tolist() for row in outputs] == [[pytest.approx(x, abs=1e-5)] for x in want]
    logs = [{name: x.item() for name, x in row["extra_logs"].items()} for row in outputs]
    assert [list(row) for row in logs] == [[*OBJECTIVES, "scored"]] * 3
    assert [row["safe"] for row in logs[:2]] == pytest.approx([scored(a).rewards["safe"] for a in ANSWERS[:2]], abs=1e-5)
    assert [row["scored"] for row in logs] == [1.0, 1.0, 0.0]


@pytest.fixture(scope="module")
def route(tiny_model: RewardModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = Path(tmp_path_factory.mktemp("served")) / "model"
    tiny_model.save_pretrained(folder)
    with processes.serving(folder) as running:
        yield running.url + "/get_reward?unscorable=-1"


def test_the_executor_asks_our_servers_route(route: str, scored: Callable[..., Any]):
    outputs = rolled_out(agent.SingleTurnAgentExecutor([route]), ANSWERS)
    want = [*(scored(answer).score for answer in ANSWERS[:2]), -1.0]
    assert [row["reward"] for row in outputs] == [[pytest.approx(x, abs=1e-5)] for x in want]
    assert [torch.tensor([row["reward"]]).shape for row in outputs] == [(1, 1)] * 3
