"""docs/rl.md: its names resolve, its tables are the code's; and the example beside it. Its blocks are run in test_docs_run."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import Reply, Request, judge_server
from reward_server import Served, reward_server

from armorm.model.reward_model import RewardModel
from armorm.rl.settings import VARIABLES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "rl.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def served(tiny_model: RewardModel) -> Iterator[Served]:
    with reward_server(tiny_model) as served:
        yield served


def test_every_name_in_the_page_is_there():
    names = set(re.findall(r"\barmorm[./]rl[./](\w+)(?:\.py)?(?:\.(\w+))?", PAGE))
    named = {(module, name) for module, name in names if module != "ms_swift"}
    assert {("trl", "score"), ("slime", "reward"), ("areal", "reward"), ("verifiers", "contributions")} <= named
    for module, name in named:
        found = importlib.import_module(f"armorm.rl.{module}")
        assert not name or callable(getattr(found, name)), f"armorm.rl.{module}.{name}"
    verl = importlib.import_module("armorm.rl.verl")
    assert all(hasattr(verl, name) for name in re.findall(r"\bcompute_\w+", PAGE))


def test_the_variables_are_those_of_the_code():
    table = dict(re.findall(r"^\| `(ARMORM_\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert table == dict(VARIABLES)
    assert set(re.findall(r"ARMORM_\w+", PAGE)) <= set(VARIABLES)


# -- examples/best_of_n.py -------------------------------------------------------------------------------------------------------

ANSWERS = ["return x", "fine, thank you.", "", "2 + 2 is 4", "hello"]


@pytest.fixture
def best_of_n(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield importlib.import_module("best_of_n")
    sys.modules.pop("best_of_n", None)


def one_or_two(request: Request) -> Reply:
    """Some servers give fewer answers than are asked for."""
    start = len(ANSWERS) - request.body["n"]
    choices = [{"message": {"role": "assistant", "content": a}} for a in ANSWERS[start : start + 2]]
    return Reply(json.dumps({"choices": choices}).encode())


def test_the_best_of_n_is_printed_with_its_reasons(
    best_of_n: Any,
    served: Served,
    tiny_model: RewardModel,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with judge_server(one_or_two) as generator:
        best_of_n.main([served.url, "How are you?", "--endpoint", generator.url, "--generator", "m", "-n", str(len(ANSWERS))])
    scores = {a: tiny_model.score([*asked("How are you?"), {"role": "assistant", "content": a}]).score for a in ANSWERS if a}
    best, *others = sorted(scores, key=lambda a: -scores[a])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == best
    assert lines[2].startswith(f"score {scores[best]:.3f}: ")
    assert all(name in lines[2] for name in ("helpful", "safe", "verbosity", "response-tokens"))
    assert lines[3] == "others: " + ", ".join([*(f"{scores[a]:.3f}" for a in others), "–"])
    assert [r.body["n"] for r in generator.requests] == [5, 3, 1]
    assert generator.requests[0].headers["authorization"] == "Bearer k"


def asked(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def test_where_no_answer_can_be_scored_it_says_so(best_of_n: Any, served: Served, capsys: pytest.CaptureFixture[str]):
    nothing = Reply(json.dumps({"choices": [{"message": {"content": None}}]}).encode())
    with judge_server(lambda _: nothing) as generator, pytest.raises(SystemExit, match="none of the answers"):
        best_of_n.main([served.url, "How?", "--endpoint", generator.url, "--generator", "m", "-n", "2"])
    with (
        judge_server(lambda _: Reply(b'{"choices": []}')) as generator,
        pytest.raises(SystemExit, match="gave no answer"),
    ):
        best_of_n.main([served.url, "How?", "--endpoint", generator.url, "--generator", "m"])


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9/v1", "nowhere"])
def test_an_endpoint_that_is_down_is_one_line(best_of_n: Any, capsys: pytest.CaptureFixture[str], endpoint: str):
    with pytest.raises(SystemExit) as ended:
        best_of_n.main(["m", "How?", "--endpoint", endpoint, "--generator", "m"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{endpoint} wrote no answers (")
    with judge_server(lambda _: Reply(b"<html>")) as generator, pytest.raises(SystemExit) as ended:
        best_of_n.main(["m", "How?", "--endpoint", generator.url, "--generator", "m"])
    assert ended.value.code == 2
