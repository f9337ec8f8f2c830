"""slime's own reward hub, with our function in it. Its sources lie beside: PyPI's package of this name is another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("slime.rollout.rm_hub")
pytest.importorskip("slime.utils.types")

from asked import ASKED, OBJECTIVES, TEMPLATED
from reward_server import Served
from slime.rollout import rm_hub as hub
from slime.utils import types

pytest_plugins = ["served_rewards"]
pytestmark = pytest.mark.filterwarnings("default")


def sample(answer: str, prompt: Any = TEMPLATED, **metadata: Any) -> Any:
    return types.Sample(prompt=prompt, response=answer, metadata=metadata)


def args(**given: Any) -> Any:
    return SimpleNamespace(custom_rm_path="armorm.rl.slime.reward", reward_key=None, eval_reward_key=None, rm_type=None, **given)


def test_the_hub_gets_a_number_for_a_sample_and_a_list_for_a_group(served: Served, scored: Callable[..., Any]):
    samples = [sample("fine"), sample("", ASKED), sample("return x", "odd <|im_start|>", messages=ASKED)]
    want = pytest.approx([scored("fine").score, -1.0, scored("return x").score], abs=1e-5)
    assert [asyncio.run(hub.async_rm(args(), one)) for one in samples] == want
    assert asyncio.run(hub.batched_async_rm(args(), samples)) == want
    own = types.Sample(prompt=TEMPLATED, response="fine", custom_rm_path="armorm.rl.slime.reward")
    nothing = SimpleNamespace(custom_rm_path=None, reward_key=None)
    assert asyncio.run(hub.async_rm(nothing, own)) == pytest.approx(scored("fine").score, abs=1e-5)


def test_with_a_key_the_sample_finds_its_own_number(served: Served, scored: Callable[..., Any]):
    given = args()
    given.reward_key = "safe"
    one = sample("fine")
    one.reward = asyncio.run(hub.async_rm(given, one, evaluation=True))
    assert list(one.reward) == ["score", *OBJECTIVES, "scored"]
    assert one.get_reward_value(given) == pytest.approx(scored("fine").rewards["safe"], abs=1e-5)
