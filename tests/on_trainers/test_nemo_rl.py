"""NeMo-RL's own registry, actors and reward gathering, with our environment in them. Its sources lie beside: PyPI has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("ray")
pytest.importorskip("nemo_rl.environments.utils", exc_type=ImportError)

import ray
from asked import OBJECTIVES, TEMPLATED
from nemo_rl.environments import utils
from reward_server import Served

from armorm.rl import nemo_rl
from armorm.rl.conversations import joined

pytest_plugins = ["served_rewards"]
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    nemo_rl.register("armorm")
    yield
    ray.shutdown()


def logs_of(*answers: str) -> list[list[dict[str, Any]]]:
    """Message logs as the processors write them: the prompt in the template, token ids beside the text."""
    return [
        [{**turn, "token_ids": torch.ones(3)} for turn in joined([{"role": "user", "content": TEMPLATED}], answer)]
        for answer in answers
    ]


def test_the_registry_starts_our_environment_in_an_actor(cluster: None, served: Served, scored: Callable[..., Any]):
    single = utils.create_env("armorm", {"model": served.url})
    several = utils.create_env("armorm", {"model": served.url, "multi": True})
    logs = logs_of("fine, thank you.", "return x", "")
    want = [scored(answer) for answer in ("fine, thank you.", "return x")]
    step = ray.get(single.step.remote(logs, [None] * 3))
    assert type(step).__name__ == "EnvironmentReturn"
    assert step.rewards.tolist() == pytest.approx([*(one.score for one in want), -1.0], abs=1e-5)
    rewards = ray.get(several.step.remote(logs, [None] * 3)).rewards
    names = sorted(OBJECTIVES)
    matrix = rewards if isinstance(rewards, torch.Tensor) else torch.stack([rewards[f"reward/{n}"] for n in names], dim=1)
    assert matrix.shape == (3, 3)
    assert matrix[0].tolist() == pytest.approx([want[0].rewards[name] for name in names], abs=1e-5)
    assert matrix[2].tolist() == [-1.0] * 3
    batch = {"total_reward": matrix.sum(dim=1), **{f"reward{i + 1}": matrix[:, i] for i in range(3)}}
    _, metrics = ray.get(several.global_post_process_and_metrics.remote(batch))
    assert metrics[f"armorm/reward/{names[0]}/mean"] == pytest.approx(matrix[:, 0].mean().item())
