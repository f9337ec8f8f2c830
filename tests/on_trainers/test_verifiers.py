"""verifiers' own `Task.score`: it plugs our functions in from its configuration and records what they give on a trace."""

from __future__ import annotations

import asyncio
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verifiers.v1")

from asked import ASKED, OBJECTIVES
from reward_server import Served
from verifiers import v1 as vf

pytest_plugins = ["served_rewards"]
pytestmark = pytest.mark.filterwarnings("default")

PAGE = (Path(__file__).parents[2] / "docs" / "rl.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## verifiers") : PAGE.index("## NeMo-RL")]


def written(kind: str) -> str:
    """The page's block of this kind."""
    (block,) = [part.removeprefix(kind) for part in SECTION.split("```") if part.startswith(kind)]
    return block


def traced(*answers: Any) -> Any:
    """A trace of a question and what came behind it, as a graph of messages."""
    turns = [vf.UserMessage(content=ASKED[0]["content"]), *answers]
    nodes = [
        vf.MessageNode(parent=i - 1 if i else None, message=turn, sampled=turn.role == "assistant")
        for i, turn in enumerate(turns)
    ]
    data = vf.TaskData(prompt=ASKED[0]["content"])
    agent = vf.AgentInfo(config=vf.AgentConfig.model_construct())
    return vf.Trace(task=vf.TraceTask(type="Task", data=data), agent=agent, nodes=nodes)


def scored_by(config: dict[str, Any], trace: Any) -> Any:
    task = vf.Task(trace.task.data, vf.TaskConfig.model_validate(config))
    asyncio.run(task.score(trace))
    return trace


def test_the_pages_configuration_puts_the_score_on_the_trace(served: Served, scored: Callable[..., Any]):
    config = tomllib.loads(written("toml"))["env"]["taskset"]["task"]
    trace = scored_by(config, traced(vf.AssistantMessage(content="fine, thank you.")))
    want = scored("fine, thank you.")
    assert trace.reward == pytest.approx(want.score, abs=1e-5)
    assert list(trace.rewards) == ["armorm"]
    assert list(trace.metrics) == OBJECTIVES
    assert trace.metrics == pytest.approx(dict(want.rewards), abs=1e-5)


def test_contributions_are_named_rewards_that_sum_to_the_score(served: Served, scored: Callable[..., Any]):
    config = {"rewards": {"ours": {"fn": "armorm.rl.verifiers:contributions", "weight": 0.5}}}
    trace = scored_by(config, traced(vf.AssistantMessage(content="return x")))
    want = scored("return x")
    assert {name: reward.score for name, reward in trace.rewards.items()} == pytest.approx(dict(want.contributions), abs=1e-5)
    assert trace.reward == pytest.approx(want.score / 2, abs=1e-5)


def test_a_trace_that_ends_with_a_tools_turn_has_the_number_for_none(served: Served):
    config = tomllib.loads(written("toml"))["env"]["taskset"]["task"]
    call = vf.ToolCall(id="1", name="add", arguments="{}")
    asked = vf.AssistantMessage(content=None, tool_calls=[call])
    for turns in ((asked, vf.ToolMessage(tool_call_id="1", content="4")), ()):
        trace = scored_by(config, traced(*turns))
        assert trace.reward == -1.0
        assert trace.metrics == {}


def test_the_pages_judge_is_plugged_in_by_its_module(
    served: Served, scored: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "armorm_judge.py").write_text(written("python"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    trace = scored_by({"judges": [{"id": "armorm-judge"}]}, traced(vf.AssistantMessage(content="fine")))
    sys.modules.pop("armorm_judge", None)
    want = scored("fine")
    assert {name: reward.score for name, reward in trace.rewards.items()} == pytest.approx(dict(want.contributions), abs=1e-5)
    assert trace.reward == pytest.approx(want.score, abs=1e-5)
