"""Rewards from a server: the same numbers, asked again where that may help, and told where it can't."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from reward_server import Served, refusal, reward_server

from armorm.errors import ArmormError, RecipeError, UserError
from armorm.model.reward_model import RewardModel
from armorm.rl import server as client
from armorm.rl.conversations import joined
from armorm.rl.rewarder import Rewarder
from armorm.rl.server import RewardServer
from armorm.rl.settings import Settings

TALKS = [joined("How are you?", answer) for answer in ("fine, thank you.", "return x", "2 + 2 is 4", "", "hello")]


@pytest.fixture(scope="module")
def serving(tiny_model: RewardModel) -> Iterator[Served]:
    with reward_server(tiny_model) as served:
        yield served


@pytest.fixture
def served(serving: Served) -> Served:
    serving.forget()
    return serving


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client would have waited for."""
    waited: list[float] = []
    monkeypatch.setattr(client.time, "sleep", waited.append)
    return waited


def test_a_servers_rows_are_the_models(served: Served, tiny_model: RewardModel):
    rows = Rewarder(Settings(served.url)).rows(TALKS)
    assert [row is None for row in rows] == [False, False, False, True, False]
    for row, talk in zip(rows, TALKS, strict=True):
        if row is not None:
            score = tiny_model.score(talk)
            assert row.score == pytest.approx(score.score, abs=1e-5)
            assert dict(row.named("contributions")) == pytest.approx(dict(score.contributions), abs=1e-5)
    assert served.headers[0]["path"] == "/v1/rewards"
    assert "authorization" not in served.headers[0]
    assert served.bodies[0] == {"details": True, "conversations": TALKS}


def test_names_come_from_the_server_and_what_it_lacks_is_told(served: Served, tiny_model: RewardModel):
    source = RewardServer(Settings(served.url))
    assert source.names("rewards") == tiny_model.objectives.names
    assert source.names("contributions") == tiny_model.basis.terms
    assert len(served.bodies) == 1
    with pytest.raises(UserError, match="gives no 'debiased'"):
        source.names("debiased")


# -- another model behind the same address -----------------------------------------------------------------------------------


def test_a_batch_is_one_models_where_servers_change(served: Served, tiny_model: RewardModel, caplog: pytest.LogCaptureFixture):
    asked = Rewarder(Settings(served.url, chunk=2))
    own = [tiny_model.score(talk).score for talk in TALKS[:3]]
    served.tells = [("one", 0.0)]
    asked.rows(TALKS[:2])
    served.tells = [("two", 100.0)]
    with caplog.at_level(logging.WARNING, "armorm.rl"):
        rows = asked.rows(TALKS[:3])
        again = asked.rows([TALKS[0], TALKS[4]])
    assert [row and row.score for row in rows] == pytest.approx([score + 100 for score in own], abs=1e-4)
    assert again[0] == rows[0]
    assert caplog.text.count("another model") == 1
    served.tells = [("two", 100.0), ("three", 200.0)]  # between two requests of a batch
    rows = asked.rows([joined("How are you?", f"fine {i}") for i in range(3)])
    assert all(row is not None and row.score > 150 for row in rows)


def test_names_are_those_of_the_model_that_answers(served: Served):
    source = RewardServer(Settings(served.url))
    served.tells = [("one", 0.0)]
    assert "helpful" in source.names("rewards")
    body = b'{"results": [{"index": 0, "score": 1, "rewards": {"kind": 0.5}}]}'
    served.first = [(200, {"x-armorm-model": "two"}, body)]
    source.score(TALKS[:1])
    assert source.names("rewards") == ("kind",)


def test_models_that_answer_in_turns_end_in_an_error(served: Served):
    served.tells = [("one", 0.0), ("two", 1.0)] * 9
    with pytest.raises(UserError, match="answers for different models"):
        Rewarder(Settings(served.url, chunk=1)).rows(TALKS[:2])
    assert len(served.bodies) == 4


def test_a_server_that_tells_no_model_is_asked_as_ever(served: Served):
    asked = Rewarder(Settings(served.url))
    served.tells = [("one", 0.0)]
    (one,) = asked.rows(TALKS[:1])
    served.tells = []
    assert asked.rows(TALKS[:2])[0] is one
    assert [len(body["conversations"]) for body in served.bodies] == [1, 1]


def test_a_fault_is_named_once(served: Served, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "armorm.rl"):
        Rewarder(Settings(served.url)).rows([joined("How are you?", "")])
    assert "The first: empty-turn: " in caplog.text
    assert "empty-turn: empty-turn" not in caplog.text


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/rewards"])
def test_the_url_may_be_given_with_its_route(served: Served, path: str):
    assert RewardServer(Settings(served.url + path)).url == f"{served.url}/v1/rewards"


@pytest.mark.parametrize("url", ["http://", "http://host:99999", "http://a b", "http://host:x", "http://hôst", "http://h/\n"])
def test_what_is_no_url_is_told_at_once(url: str):
    with pytest.raises(UserError, match="is no URL"):
        RewardServer(Settings(url))


def test_the_key_and_the_profile_go_along(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ARMORM_API_KEY", " secret ")
    RewardServer(Settings(served.url, profile="careful")).score(TALKS[:1])
    RewardServer(Settings(served.url, profile='{"name": "p", "drop": ["safe"]}')).score(TALKS[:1])
    assert [h["authorization"] for h in served.headers] == ["Bearer secret"] * 2
    assert [b["profile"] for b in served.bodies] == ["careful", {"name": "p", "drop": ["safe"]}]
    with pytest.raises(RecipeError, match="no JSON"):
        RewardServer(Settings(served.url, profile="{careful"))
    monkeypatch.setenv("ARMORM_API_KEY", "a\nb")
    with pytest.raises(UserError, match="ARMORM_API_KEY holds letters"):
        RewardServer(Settings(served.url))


def test_many_are_asked_in_pieces_and_what_is_too_large_in_halves(served: Served):
    talks = [joined("How are you?", f"fine {i}") for i in range(10)]
    source = RewardServer(Settings(served.url, chunk=4))
    whole = source.score(talks)
    assert [len(b["conversations"]) for b in served.bodies] == [4, 4, 2]
    served.forget()
    served.most = 1
    again = source.score(talks[:4])
    assert [getattr(row, "score", row) for row in again] == pytest.approx([row.score for row in whole[:4]], abs=1e-5)
    assert [len(b["conversations"]) for b in served.bodies] == [4, 2, 1, 1, 2, 1, 1]
    served.most = 0
    assert source.score(talks[:2]) == ["too-large: the server takes no conversation of this size"] * 2


def test_a_body_beyond_the_usual_bytes_is_halved_before_it_is_sent(served: Served, monkeypatch: pytest.MonkeyPatch):
    source = RewardServer(Settings(served.url))
    talks = [joined("How are you?", f"fine {i}") for i in range(4)]
    source.score(talks)
    size = len(json.dumps(served.bodies[-1]).encode())
    served.forget()
    monkeypatch.setattr(client, "USUAL_BYTES", int(0.8 * size))
    assert [isinstance(row, str) for row in source.score(talks)] == [False] * 4
    assert [len(b["conversations"]) for b in served.bodies] == [2, 2]
    served.forget()
    monkeypatch.setattr(client, "USUAL_BYTES", 1)
    source.score(talks)
    assert [len(b["conversations"]) for b in served.bodies] == [1] * 4


def test_what_json_can_not_hold_is_not_sent(served: Served):
    odd = [joined("a", {1, 2}), joined("a", float("nan")), joined("a", "\ud800"), TALKS[0]]
    rows = RewardServer(Settings(served.url)).score(odd)
    assert [isinstance(row, str) for row in rows] == [True, True, True, False]
    assert served.bodies[0]["conversations"] == [odd[2], odd[3]]
    assert RewardServer(Settings(served.url)).score([]) == []


def test_keys_that_are_one_in_json_cost_their_own_row_alone(served: Served):
    def calling(arguments: Any) -> list[Any]:
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        turns = [{"role": "assistant", "content": "I look.", "tool_calls": [call]}, {"role": "tool", "content": "4"}]
        return joined("a", [*turns, {"role": "assistant", "content": "fine"}])

    odd = [calling({1: 2, "1": 3}), calling({"a": {None: 2, "null": 3}}), calling({True: 2, "true": 3}), calling({1: 2, 1.5: 3})]
    rows = RewardServer(Settings(served.url)).score([TALKS[0], *odd, TALKS[1]])
    assert ["repeated-key" in str(row) for row in rows] == [False, True, True, True, False, False]
    assert len(served.bodies[0]["conversations"]) == 3
    assert not isinstance(rows[0], str)
    assert not isinstance(rows[-1], str)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_no_reward(served: Served, number: str):
    sent = [
        f'{{"index": 0, "score": {number}}}',
        '{"index": 1, "score": 0.5}',
        f'{{"index": 2, "score": 0.5, "rewards": {{"a": {number}}}}}',
    ]
    served.first = [(200, {}, f'{{"results": [{", ".join(sent)}]}}'.encode())]
    rows = Rewarder(Settings(served.url)).rows(TALKS[:3])
    assert [row and row.score for row in rows] == [None, 0.5, None]


def test_a_urls_scheme_may_be_in_capitals(served: Served):
    (row,) = Rewarder(Settings(served.url.replace("http", "HTTP"))).rows(TALKS[:1])
    assert row is not None


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again_with_growing_pauses(served: Served, pauses: list[float], status: int):
    served.first = [refusal(status), refusal(status), (0, {}, b""), refusal(status)]
    (row,) = RewardServer(Settings(served.url)).score(TALKS[:1])
    assert not isinstance(row, str)
    assert len(served.bodies) == 5
    assert all(0.75 * 0.5 * 2**i <= pause <= 0.5 * 2**i for i, pause in enumerate(pauses))


@pytest.mark.parametrize(("asked", "waited"), [("3", 3), ("0", 0), ("1e9", 120), ("-5", 0), ("nan", None), ("soon", None)])
def test_retry_after_is_honoured(served: Served, pauses: list[float], asked: str, waited: float | None):
    served.first = [refusal(429, "queue full", retry_after=asked)]
    RewardServer(Settings(served.url)).score(TALKS[:1])
    assert pauses == [waited] if waited is not None else 0.3 < pauses[0] <= 0.5


def test_retry_after_may_be_a_date(served: Served, pauses: list[float]):
    served.first = [refusal(503, retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True))]
    RewardServer(Settings(served.url)).score(TALKS[:1])
    assert 15 < pauses[0] <= 20


def test_a_server_that_stays_away_ends_in_an_error_that_says_so(served: Served, pauses: list[float]):
    served.first = [refusal(503, "draining")] * 3
    with pytest.raises(ArmormError, match="no rewards in 3 tries; the last said 503: draining"):
        RewardServer(Settings(served.url, retries=2)).score(TALKS[:1])
    with pytest.raises(ArmormError, match="Connection refused"):
        RewardServer(Settings("http://127.0.0.1:9", retries=1)).score(TALKS[:1])
    assert len(pauses) == 3


def test_a_server_that_does_not_answer_is_left_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(ArmormError, match="TimeoutError"):
            RewardServer(Settings(f"http://127.0.0.1:{silent.getsockname()[1]}", retries=0, timeout=0.2)).score(TALKS[:1])
        assert time.monotonic() - began < 5


def test_a_reply_that_breaks_off_is_asked_for_again(served: Served, pauses: list[float]):
    served.first = [(200, {"content-length": "100"}, b'{"results"')]
    (row,) = RewardServer(Settings(served.url)).score(TALKS[:1])
    assert not isinstance(row, str)
    assert len(pauses) == 1


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (refusal(401, "no such key"), "refuses the key .*no such key.*ARMORM_API_KEY, which is not set"),
        (refusal(404), "has no rewards"),
        (refusal(302, location="http://127.0.0.1:9/x"), "has no rewards"),
        (refusal(400, "no profile 'x'"), "refuses what is asked .400: no profile 'x'"),
        ((422, {}, json.dumps({"detail": [{"msg": "wrong"}]}).encode()), "wrong"),
        ((400, {}, b"\xff<html>"), "refuses what is asked"),
    ],
)
def test_what_will_not_pass_is_an_error_at_once(
    served: Served, pauses: list[float], reply: Any, told: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("ARMORM_API_KEY", raising=False)
    served.first = [reply]
    with pytest.raises(UserError, match=told):
        RewardServer(Settings(served.url)).score(TALKS[:1])
    assert pauses == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"results": []}',
        b'{"results": [{"index": 0, "score": null}]}',
        b'{"results": [{"index": 0, "score": 1' + b"0" * 400 + b"}]}",
        b'{"results": 3}',
        b"<html>",
        b"[" * 9999,
    ],
)
def test_a_reply_that_is_none_is_named(served: Served, body: bytes):
    served.first = [(200, {}, body)]
    with pytest.raises(ArmormError, match="are no rewards"):
        RewardServer(Settings(served.url)).score(TALKS[:1])


def test_the_client_needs_neither_torch_nor_numpy(served: Served):
    code = (
        "import sys; from armorm.rl import areal, slime, verl, trl, verifiers\n"
        "print(areal.reward('How are you?', 'fine'))\n"
        "print({'torch', 'numpy', 'transformers', 'pydantic'} & set(sys.modules))"
    )
    env = {"ARMORM_REWARD_MODEL": served.url, "PYTHONPATH": ":".join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    number, loaded = found.stdout.splitlines()
    assert float(number) != -1.0
    assert loaded == "set()"
