"""A model behind HTTP: the scores of Python, faults that stay with their own, limits that hold, a log that tells no texts."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import math
import random
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from armorm.errors import BackboneError, DataError, RecipeError
from armorm.fit.preference import Preference
from armorm.model.reward_model import RewardModel
from armorm.scoring.profile import Profile
from armorm.serving.app import create_app
from armorm.serving.door import Door
from armorm.serving.keys import Keys
from armorm.serving.local import LocalService
from armorm.serving.logs import NAME, JsonLines
from armorm.serving.server import listen, read_profiles
from armorm.serving.service import Limits, Overloaded, Service

CAREFUL = Profile(name="careful", fix={"safe": 0.5})
WORDS = ("hello", "how", "are", "you?", "fine,", "thank", "2", "+", "4;", "def", "f(x):", "return", "x", "Grüße", "数")
ASKED = [{"role": "user", "content": "how are you?"}]
Client = httpx.AsyncClient


def talks(n: int, seed: int = 0) -> list[list[dict[str, str]]]:
    draw = random.Random(seed)
    texts = iter(lambda: " ".join(draw.choices(WORDS, k=draw.randint(1, 20))), None)
    prompts = [next(texts) for _ in range(n // 3 + 1)]
    return [[{"role": "user", "content": draw.choice(prompts)}, {"role": "assistant", "content": next(texts)}] for _ in range(n)]


async def post(client: Client, body: Any, path: str = "/v1/rewards") -> httpx.Response:
    """Ask with a body that may hold what UTF-8 can't."""
    return await client.post(path, content=json.dumps(body).encode(), headers={"content-type": "application/json"})


class House:
    """A service on the tiny model behind its door, in this process."""

    def __init__(self, model: RewardModel, *, door: Door | None = None, limits: Limits | None = None, **how: Any) -> None:
        limits = limits or Limits()
        engine = model.engine(batch_tokens=how.pop("batch_tokens", 4096))
        self.service = LocalService(engine, "tiny", profiles={"careful": CAREFUL}, limits=limits, **how)
        self.door = door or Door(limits)
        self.app = create_app(self.service, self.door)
        self.batches: list[int] = []
        told = self.service.watch

        def watch(rows: int, tokens: int, seconds: float) -> None:
            self.batches.append(tokens)
            told(rows, tokens, seconds)

        self.service.watch = watch

    def run(self, ask: Callable[[Client], Awaitable[Any]]) -> Any:
        """What a client's coroutine gives."""

        async def living() -> Any:
            await self.service.start()
            try:
                transport = httpx.ASGITransport(app=self.app)
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    return await ask(client)
            finally:
                await self.service.close()

        return asyncio.run(living())

    def post(self, body: Any, path: str = "/v1/rewards") -> httpx.Response:
        """The answer to one request."""
        return self.run(lambda client: post(client, body, path))


@pytest.fixture
def house(tiny_model: RewardModel) -> House:
    return House(tiny_model)


class Held:
    """An engine's scoring that waits until it is let go, and says when it has begun."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        original = house.service.engine.score_rendered

        def waits(*arguments: Any, **named: Any) -> Any:
            self.begun.set()
            assert self.go.wait(timeout=30)
            return original(*arguments, **named)

        monkeypatch.setattr(house.service.engine, "score_rendered", waits)

    async def seen(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 30)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.002)


# -- which model it is ---------------------------------------------------------------------------------------------------------


def test_the_header_is_equal_for_one_model_and_another_for_another(tiny_model: RewardModel):
    def told(model: RewardModel) -> str:
        return House(model).post({"conversations": talks(1)}).headers["x-armorm-model"]

    other, steered, worded = copy.deepcopy(tiny_model), copy.deepcopy(tiny_model), copy.deepcopy(tiny_model)
    assert told(tiny_model) == told(copy.deepcopy(tiny_model))
    with torch.no_grad():
        other.regression_layer.weight[0, 0] += 0.5
    steered.config.profile = CAREFUL.to_json()
    worded.tokenizer.chat_template += " "
    assert len({told(model) for model in (tiny_model, other, steered, worded)}) == 4
    assert len(told(tiny_model)) == 64


# -- the same scores -----------------------------------------------------------------------------------------------------------


def test_scores_by_http_are_those_of_python_whatever_else_is_asked_meanwhile(house: House, tiny_model: RewardModel):
    asked = talks(60)
    expected = tiny_model.score(asked)

    async def ask(client: Client) -> list[dict[str, Any]]:
        parts = [asked[i : i + 5] for i in range(0, len(asked), 5)]
        replies = await asyncio.gather(
            *(client.post("/v1/rewards", json={"conversations": part, "details": True}) for part in parts)
        )
        assert [r.status_code for r in replies] == [200] * 12
        return [result for reply in replies for result in reply.json()["results"]]

    found = house.run(ask)
    assert [r["index"] for r in found] == [0, 1, 2, 3, 4] * 12
    assert np.allclose([r["score"] for r in found], [s.score for s in expected], rtol=0, atol=1e-5)
    for result, score in zip(found, expected, strict=True):
        for key, values in (("rewards", score.rewards), ("raw_rewards", score.raw), ("contributions", score.contributions)):
            assert result[key] == pytest.approx(dict(values), abs=1e-4), key
        assert result["gate"] == pytest.approx(dict(score.gate), abs=1e-5)
        assert result["std"] is None
        assert not result["truncated"]
    assert len(house.batches) < 12  # requests shared batches


def test_deviations_are_computed_for_a_batch_where_one_of_it_asks_and_told_to_that_one_alone(
    sure: RewardModel, monkeypatch: pytest.MonkeyPatch
):
    house, wanted = House(sure), list[bool]()
    original = house.service.engine.score_rendered

    def counted(*arguments: Any, deviations: bool, **named: Any) -> Any:
        wanted.append(deviations)
        return original(*arguments, deviations=deviations, **named)

    monkeypatch.setattr(house.service.engine, "score_rendered", counted)
    held = Held(house, monkeypatch)

    async def ask(client: Client) -> list[list[Any]]:
        first = asyncio.create_task(post(client, {"conversations": talks(2)}))
        await held.seen()
        both = [asyncio.create_task(house.service.score(talks(2, seed=i), deviations=i == 2)) for i in (1, 2)]
        await until(lambda: len(house.service.waiting) == 4)
        held.go.set()
        await first
        return await asyncio.gather(*both)

    without, with_them = house.run(ask)
    assert wanted == [False, True]
    expected = sure.engine().score(talks(2, seed=2), deviations=True)
    for score, own in zip(with_them, expected, strict=True):
        assert score.std == pytest.approx(own.std, rel=1e-3)
        assert dict(score.reward_std) == pytest.approx(dict(own.reward_std), rel=1e-3)
    assert all((score.std, score.reward_std) == (None, {}) for score in without)
    details = House(sure).post({"conversations": talks(2, seed=2), "details": True}).json()["results"]
    assert [one["std"] for one in details] == pytest.approx([score.std for score in with_them], rel=1e-3)


def test_a_prompt_and_its_answers_are_conversations_and_the_prompt_is_read_once(house: House, tiny_model: RewardModel):
    answers = ["fine, thank you.", "2 + 2 is 4", "hello"]
    reply = house.post({"messages": ASKED, "answers": answers}).json()
    conversations = [[*ASKED, {"role": "assistant", "content": answer}] for answer in answers]
    assert [r["score"] for r in reply["results"]] == pytest.approx([s.score for s in tiny_model.score(conversations)], abs=1e-5)
    rendered = [tiny_model.renderer.render(c) for c in conversations]
    assert [r["tokens"] for r in reply["results"]] == list(map(len, rendered))
    assert house.batches == [len(rendered[0].prompt) + sum(len(r.answer) + len(r.closing) for r in rendered)]


def test_a_prompt_that_two_clients_ask_about_is_read_once(house: House, monkeypatch: pytest.MonkeyPatch, tiny_model: RewardModel):
    held = Held(house, monkeypatch)

    async def ask(client: Client) -> None:
        first = asyncio.create_task(client.post("/v1/rewards", json={"conversations": talks(1)}))
        await held.seen()  # the decoder is busy: two more wait
        more = [
            asyncio.create_task(client.post("/v1/rewards", json={"messages": ASKED, "answers": [text]}))
            for text in ("hello", "fine, thank you.")
        ]
        await until(lambda: len(house.service.waiting) == 2)
        held.go.set()
        assert [r.status_code for r in await asyncio.gather(first, *more)] == [200] * 3

    house.run(ask)
    one, two = (
        tiny_model.renderer.render([*ASKED, {"role": "assistant", "content": text}]) for text in ("hello", "fine, thank you.")
    )
    assert house.batches[1:] == [len(one) + len(two.answer) + len(two.closing)]


def test_requests_under_different_profiles_share_a_batch_and_keep_their_own(house: House, tiny_model: RewardModel):
    asked, inline = talks(3), {"floor": {"helpful": 0.6}}
    bodies = [{"conversations": asked, "profile": p} for p in (None, "careful", inline)]

    async def ask(client: Client) -> list[httpx.Response]:
        return list(await asyncio.gather(*(client.post("/v1/rewards", json=body) for body in bodies)))

    for reply, profile in zip(house.run(ask), (None, CAREFUL, Profile.from_json(inline)), strict=True):
        expected = [s.score for s in tiny_model.score(asked, profile=profile)]
        assert [r["score"] for r in reply.json()["results"]] == pytest.approx(expected, abs=1e-5)


def test_a_comparison_is_the_models_own(assembled: Any, parts: Any):
    model = assembled(*parts)
    model.preference = Preference("logistic", pairs=100, prompts=50, slope=2.0)
    texts = ("fine, thank you.", "2 + 2")
    a, b = ([*ASKED, {"role": "assistant", "content": text}] for text in texts)
    asked = [
        {"a": a, "b": b},
        {"messages": ASKED, "a": texts[0], "b": texts[1]},
        {"messages": ASKED, "a": texts[0], "b": texts[1], "profile": "careful"},
        {"a": a, "b": talks(1)[0]},
    ]
    expected = [model.compare(a, b)] * 2 + [model.compare(a, b, profile=CAREFUL), model.compare(a, talks(1)[0])]
    house = House(model, preference=model.preference)

    async def ask(client: Client) -> list[Any]:
        replies = [await client.post("/v1/compare", json=body) for body in asked]
        refused = await client.post("/v1/compare", json={"messages": ASKED, "a": "x", "b": ""})
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "empty-turn")
        assert refused.json()["error"]["message"].startswith("b: ")
        return [reply.json() for reply in replies]

    for found, compared in zip(house.run(ask), expected, strict=True):
        assert found["margin"] == pytest.approx(compared.margin, abs=1e-5)
        assert found["margin"] == pytest.approx(found["scores"]["a"] - found["scores"]["b"], abs=1e-9)
        assert sum(found["contributions"].values()) == pytest.approx(found["margin"], abs=1e-6)
        assert found["sentence"] == compared.sentence
        assert found.get("note", "") == compared.note
        if compared.probability is None:
            assert found["probability"] is None
        else:
            assert found["probability"] == pytest.approx(compared.probability, abs=1e-5)
    assert [one.probability is None for one in expected] == [False, False, True, True]


# -- faults stay with their own ------------------------------------------------------------------------------------------------


def test_a_bad_conversation_has_an_error_and_its_neighbours_have_scores(house: House):
    bad: list[Any] = [None, 3, "hello", [], {}, [[]], [{"role": "user"}], ASKED, [{"role": "x", "content": "y"}], "\ud800"]
    bad += [[*ASKED, {"role": "assistant", "content": c}] for c in (None, 2.5, "", "\ud800", ["a"], {"a": [1]})]
    good = talks(2)
    reply = house.post({"conversations": [good[0], *bad, good[1]], "details": True})
    assert reply.status_code == 200
    first, *middle, last = reply.json()["results"]
    assert "score" in first
    assert "score" in last
    assert len(middle) == len(bad)
    for result in middle:
        assert set(result) == {"index", "error"}
        assert result["error"]["type"]
        assert result["error"]["message"]


def test_what_the_decoder_can_not_score_is_that_rows_fault_alone(house: House, monkeypatch: pytest.MonkeyPatch):
    original, calls = house.service.engine.score_rendered, []

    def fails(rendered: Any, **named: Any) -> Any:
        calls.append(len(rendered))
        if any(r.text == "poison" for r in rendered):
            raise BackboneError("features are not finite")
        return original(rendered, **named)

    monkeypatch.setattr(house.service.engine, "score_rendered", fails)
    results = house.post({"messages": ASKED, "answers": ["a", "b", "poison", "c"]}).json()["results"]
    assert ["error" in r for r in results] == [False, False, True, False]
    assert calls == [4, 2, 2, 1, 1]


def test_a_model_that_fails_is_a_fault_of_the_server_and_the_next_request_is_answered(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    original = house.service.engine.score_rendered

    def fails(rendered: Any, **named: Any) -> Any:
        if any(r.text == "poison" for r in rendered):
            raise MemoryError("poison")
        return original(rendered, **named)

    monkeypatch.setattr(house.service.engine, "score_rendered", fails)

    async def ask(client: Client) -> list[int]:
        bodies = [{"messages": ASKED, "answers": answers} for answers in (["a", "poison"], ["b"])]
        replies = await asyncio.gather(*(client.post("/v1/rewards", json=body) for body in bodies))
        return [r.status_code for r in replies]

    assert house.run(ask) == [500, 200]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "give either"),
        ({"conversations": [], "messages": ASKED}, 422, "give either"),
        ({"conversations": [], "messages": ASKED, "answers": []}, 422, "give either"),
        ({"messages": ASKED}, 422, "give either"),
        ({"conversations": {}}, 422, "conversations"),
        ({"conversations": [], "detials": True}, 422, "detials"),
        ([], 422, "body"),
        ({"conversations": [], "model": "other"}, 404, "'tiny'"),
        ({"conversations": [], "profile": "bold"}, 400, "there are careful"),
        ({"conversations": [], "profile": {"drop": ["sfe"]}}, 400, "did you mean 'safe'"),
        ({"conversations": [], "profile": {"blend": "x"}}, 400, "blend"),
        ({"conversations": [], "profile": {"drop": ["x" * 20_000]}}, 400, "letters"),
        ({"conversations": [ASKED] * 513}, 413, "at most 512"),
        ({"conversations": []}, 200, ""),
    ],
)
def test_a_request_that_can_not_be_hears_what_to_do(house: House, body: Any, status: int, said: str):
    reply = house.post(body)
    assert reply.status_code == status, reply.text
    if status != 200:
        error = reply.json()["error"]
        assert said in error["message"]
        assert error["request_id"] == reply.headers["x-request-id"]


def test_what_is_no_json_or_no_route_is_said_in_the_same_form(house: House):
    async def ask(client: Client) -> list[httpx.Response]:
        typed = {"content-type": "application/json"}
        bodies = (b"", b"{", b"[" * 50_000, b"\xff\xfe", b'{"conversations": NaN}', b'{"a": ' + b"9" * 5000 + b"}")
        replies = [await client.post("/v1/rewards", content=body, headers=typed) for body in bodies]
        replies += [await client.post("/v1/rewards", json={}, headers={"content-type": "text/plain"})]
        return [*replies, await client.get("/nothing"), await client.get("/v1/rewards"), await client.put("/healthz")]

    replies = house.run(ask)
    assert {r.status_code for r in replies[:7]} <= {400, 422}
    assert [r.status_code for r in replies[7:]] == [404, 405, 405]
    assert all(set(r.json()["error"]) == {"type", "message", "request_id"} for r in replies)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANY = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3))
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool", 3]), "content": ANY})
TALK = st.lists(TURN | ANY, max_size=4) | ANY
WISHES = ("drop", "fix", "floor", "cap", "weights", "blend", "scale", "constraints", "nuisances", "name")
PROFILE = st.none() | st.just("careful") | st.text(max_size=4) | st.dictionaries(st.sampled_from(WISHES), ANY, max_size=3)
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "conversations": st.lists(TALK, max_size=3) | ANY,
        "messages": TALK,
        "answers": st.lists(ANY, max_size=3),
        "profile": PROFILE,
        "details": ANY,
        "a": TALK,
        "b": TALK,
        "model": st.none() | ANY,
    },
)


@pytest.fixture(scope="module")
def lasting(tiny_model: RewardModel) -> Iterator[Callable[[str, bytes], httpx.Response]]:
    """One service for many requests, one after another."""
    house = House(tiny_model)
    with asyncio.Runner() as runner:
        runner.run(house.service.start())
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=house.app), base_url="http://test")
        typed = {"content-type": "application/json"}
        yield lambda path, body: runner.run(client.post(path, content=body, headers=typed))
        runner.run(client.aclose())
        runner.run(house.service.close())


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(["/v1/rewards", "/v1/compare"]), body=REQUEST)
def test_no_input_is_a_fault_of_the_server(lasting: Callable[[str, bytes], httpx.Response], path: str, body: Any):
    reply = lasting(path, json.dumps(body).encode())
    assert reply.status_code in (200, 400, 404, 413, 422), reply.text
    reply.json()


def test_the_examples_that_openapi_shows_are_answered(house: House):
    async def ask(client: Client) -> int:
        described = (await client.get("/openapi.json")).json()
        count = 0
        for path, methods in described["paths"].items():
            for method, facts in methods.items():
                if method != "post":
                    continue
                body = facts["requestBody"]["content"]["application/json"]
                named = described["components"]["schemas"].get(body["schema"].get("$ref", "").rpartition("/")[2], body["schema"])
                examples = named.get("examples", ())
                assert examples or "own" not in facts.get("tags", ()), path
                for example in examples:
                    reply = await client.post(path, json=example)
                    assert reply.status_code == 200, (path, reply.text)
                    shown = facts["responses"]["200"]["content"]["application/json"].get("example")
                    assert shown is None or reply.json().keys() - {"note"} == shown.keys()
                    count += 1
        return count

    assert house.run(ask) >= 5


# -- limits --------------------------------------------------------------------------------------------------------------------


def test_a_full_queue_says_so_and_recovers(tiny_model: RewardModel, monkeypatch: pytest.MonkeyPatch):
    house = House(tiny_model, limits=Limits(queue_tokens=120))
    held = Held(house, monkeypatch)

    async def ask(client: Client) -> None:
        def post(text: str) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(client.post("/v1/rewards", json={"messages": ASKED, "answers": [text]}))

        accepted = [post("hello")]
        await held.seen()
        refused = 0
        for i in range(30):
            task = post(f"fine, thank you {i}.")
            await until(lambda t=task, n=i: t.done() or len(house.service.waiting) >= n + 1)
            if not task.done():
                accepted.append(task)
                continue
            refused += 1
            reply = task.result()
            assert reply.status_code == 429
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.json()["error"]["type"] == "overloaded"
            assert house.service.waiting.tokens <= 120
            break
        assert refused
        assert len(accepted) > 2
        assert (await client.get("/healthz")).status_code == 200
        counters = (await client.get("/metrics")).text
        assert f"armorm_queue_conversations {float(len(accepted) - 1)}" in counters
        held.go.set()
        assert {r.status_code for r in await asyncio.gather(*accepted)} == {200}
        assert (await post("hello again")).status_code == 200
        counters = (await client.get("/metrics")).text
        assert 'armorm_refusals_total{reason="overloaded"} 1.0' in counters
        assert "armorm_queue_tokens 0.0" in counters
        assert f"armorm_scored_conversations_total {float(len(accepted) + 1)}" in counters

    house.run(ask)


def test_a_request_that_no_queue_can_hold_is_too_large(tiny_model: RewardModel):
    house = House(tiny_model, limits=Limits(queue_tokens=100))
    reply = house.post({"conversations": talks(20)})
    assert reply.status_code == 413
    assert "at most 100" in reply.json()["error"]["message"]


def test_what_could_not_be_answered_in_time_is_refused_at_once(tiny_model: RewardModel, monkeypatch: pytest.MonkeyPatch):
    house = House(tiny_model, limits=Limits(seconds=20.0), batch_tokens=64)
    held = Held(house, monkeypatch)
    service = house.service

    async def ask(client: Client) -> None:
        first = asyncio.create_task(service.score(talks(6)))
        await held.seen()
        await until(lambda: len(service.waiting) > 0)
        before = service._in_decoder + service.waiting.tokens
        added = service.waiting.added_by([tiny_model.renderer.render(talk) for talk in talks(1, seed=9)])
        for rate, refused in ((math.nan, False), ((before + added) / 20.0 - 0.1, True), ((before + added) / 20.0 + 0.1, False)):
            service._rate = rate
            second = asyncio.create_task(service.score(talks(1, seed=9)))
            await until(lambda one=second: one.done() or len(service.waiting) > 5)  # type: ignore[misc]
            if refused:
                with pytest.raises(Overloaded, match="would not be answered within 20 seconds") as told:
                    await second
                assert told.value.retry_after == math.ceil(before / rate)
            assert second.done() == refused
            second.cancel()
            await until(lambda: service._in_decoder + service.waiting.tokens == before)
        held.go.set()
        assert len(await first) == 6
        service._rate = 1e-6
        (alone,) = await service.score(talks(1))  # where nothing waits, a request is tried whatever its length
        assert alone.score == pytest.approx(tiny_model.score(talks(1)[0]).score, abs=1e-5)

    house.run(ask)


def test_the_rate_is_that_of_batches_that_are_half_full(house: House):
    for tokens, seconds, known in ((10, 1.0, math.nan), (2048, 1.0, 2048), (10, 1.0, 2048), (4096, 1.0, 0.8 * 2048 + 0.2 * 4096)):
        house.service._learn_rate(tokens, seconds)
        assert house.service._rate == pytest.approx(known, nan_ok=True)


def test_requests_are_counted_too(tiny_model: RewardModel, monkeypatch: pytest.MonkeyPatch):
    house = House(tiny_model, limits=Limits(queue_requests=2))
    held = Held(house, monkeypatch)

    async def ask(client: Client) -> None:
        tasks = [asyncio.create_task(house.service.score([talk])) for talk in talks(2)]
        await held.seen()
        with pytest.raises(Overloaded):
            await house.service.score(talks(1))
        held.go.set()
        await asyncio.gather(*tasks)
        assert len(await house.service.score(talks(1))) == 1
        assert house.service.requests == 0

    house.run(ask)


def test_what_takes_too_long_is_given_up_and_taken_back(house: House, monkeypatch: pytest.MonkeyPatch):
    held = Held(house, monkeypatch)

    async def ask(client: Client) -> None:
        first = asyncio.create_task(client.post("/v1/rewards", json={"conversations": talks(1)}))
        await held.seen()
        house.service.limits = Limits(seconds=0.1)
        late = await client.post("/v1/rewards", json={"conversations": talks(1, seed=1)})
        assert late.status_code == 504
        assert late.json()["error"]["type"] == "timed-out"
        assert house.service.waiting.tokens == 0
        held.go.set()
        assert (await first).status_code == 200

    house.run(ask)


async def call(app: Any, messages: AsyncIterator[dict[str, Any]], **scope: Any) -> list[dict[str, Any]]:
    """An ASGI call with a client that sends these messages."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return await anext(messages)

    facts = {"type": "http", "method": "POST", "path": "/v1/rewards", "query_string": b"", "headers": [], "http_version": "1.1"}
    typed = [(b"content-type", b"application/json"), *scope.pop("headers", [])]
    await app({**facts, "asgi": {"version": "3.0"}, "root_path": "", "scheme": "http", "headers": typed, **scope}, receive, send)
    return sent


def test_a_client_that_leaves_takes_its_work_along(tiny_model: RewardModel, monkeypatch: pytest.MonkeyPatch):
    house = House(tiny_model)
    held, left = Held(house, monkeypatch), asyncio.Event()

    async def leaving() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "http.request", "body": json.dumps({"conversations": talks(9, seed=2)}).encode(), "more_body": False}
        await left.wait()
        while True:
            yield {"type": "http.disconnect"}

    async def ask(client: Client) -> None:
        first = asyncio.create_task(post(client, {"conversations": talks(1)}))
        await held.seen()
        gone = asyncio.create_task(call(house.app, leaving()))
        await until(lambda: len(house.service.waiting) == 9)
        left.set()
        assert await gone == []
        assert len(house.service.waiting) == house.service.waiting.tokens == 0
        assert (house.door.inside, house.door.held) == (1, len(json.dumps({"conversations": talks(1)})))
        held.go.set()
        assert (await first).status_code == 200
        assert 'armorm_refusals_total{reason="client-left"} 1.0' in (await client.get("/metrics")).text
        assert (house.door.inside, house.door.held) == (0, 0)

    house.run(ask)
    assert len(house.batches) == 1


def status_of(sent: list[dict[str, Any]]) -> int:
    return int(sent[0]["status"])


def test_a_body_is_counted_while_it_comes_in(tiny_model: RewardModel):
    limits = Limits(body_bytes=10_000, bodies_bytes=30_000)
    house = House(tiny_model, limits=limits)
    read = 0

    async def endless(most: int = 11_000) -> AsyncIterator[dict[str, Any]]:
        nonlocal read
        while True:
            read += 1000
            assert house.door.held <= most
            yield {"type": "http.request", "body": b" " * 1000, "more_body": True}

    async def ask(client: Client) -> None:
        sent = await call(house.app, endless())
        assert status_of(sent) == 413
        assert (b"connection", b"close") in sent[0]["headers"]
        assert read <= 60_000
        before = read
        told = await call(house.app, endless(), headers=[(b"content-length", b"99999999999")])
        assert status_of(told) == 413
        assert read == before  # nothing is read of what is longer than would be passed over
        assert status_of(await call(house.app, endless(), headers=[(b"content-length", b"40000")])) == 413
        assert before < read <= before + 41_000  # its client hears why
        house.door.held = 29_500
        assert status_of(await call(house.app, endless(most=30_500))) == 429
        assert house.door.held == 29_500
        house.door.held = 0
        assert (await client.post("/v1/rewards", json={"conversations": talks(1)})).status_code == 200

    house.run(ask)


def test_a_slow_body_is_not_waited_for(tiny_model: RewardModel):
    house = House(tiny_model, limits=Limits(body_seconds=0.05))

    async def slow() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "http.request", "body": b'{"conv', "more_body": True}
        await asyncio.sleep(60)

    async def ask(client: Client) -> None:
        sent = await call(house.app, slow())
        assert status_of(sent) == 408
        assert json.loads(sent[1]["body"])["error"]["type"] == "slow-body"
        assert house.door.held == 0

    house.run(ask)


# -- keys, the log -------------------------------------------------------------------------------------------------------------

KEY = "a-key-of-mine"


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged, as it would be written."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(JsonLines().format(record))  # type: ignore[method-assign]
    logger = logging.getLogger(NAME)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_a_key_opens_in_three_ways_and_stands_in_no_log(tiny_model: RewardModel, lines: list[str]):
    house = House(tiny_model, door=Door(keys=Keys.of(["another-one", KEY])))

    async def ask(client: Client) -> None:
        good = [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"X-API-Key": KEY}]
        for headers in good:
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
        assert (await client.get(f"/v1/models?x=1&api_key={KEY}")).status_code == 200
        bad = [{}, {"Authorization": KEY}, {"Authorization": "Bearer "}, {"X-API-Key": KEY + "x"}, {"X-API-Key": KEY[:-1]}]
        for headers in bad:
            reply = await client.get("/v1/models", headers=headers)
            assert reply.status_code == 401
            assert reply.headers["www-authenticate"] == "Bearer"
        for path in ("/v1/rewards", "/metrics", "/openapi.json", f"/nothing/{KEY}"):
            assert (await client.get(f"{path}?api_key=wrong-{KEY}")).status_code == 401
        assert [(await client.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 200]

    house.run(ask)
    assert len(lines) == 15
    assert KEY not in "".join(lines)
    assert KEY not in repr(house.door)


def test_open_paths_need_no_key_and_what_is_beside_them_does():
    door = Door(open_paths=("/", "/page/"))
    assert [door.is_open(path) for path in ("/", "/page/x.js", "/page", "/v1/models", "/pages", "")] == [True, True] + [False] * 4


def test_keys_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    file = tmp_path / "keys"
    file.write_text("first-key-1\n\nsecond-key\n")
    keys = Keys.read("MY_KEY", file)
    assert all(keys.admit([(b"x-api-key", key.encode())], b"") for key in (KEY, "first-key-1", "second-key"))
    assert not keys.admit([(b"x-api-key", b"")], b"api_key=%ff")
    assert Keys.read().admit([], b"")
    file.write_text("\n")
    for environment, path, said in (
        ("NO_KEY", None, "NO_KEY"),
        (None, file, "holds no API key"),
        (None, tmp_path / "x", "no such"),
    ):
        with pytest.raises(DataError, match=said):
            Keys.read(environment, path)
    for key in ("short", "with space in it", "schlüssel-1"):
        with pytest.raises(DataError, match="can't be used") as told:
            Keys.of([key])
        assert key not in str(told.value)


@pytest.mark.parametrize("told", [False, True])
def test_the_log_has_ids_and_texts_only_where_they_are_asked_for(tiny_model: RewardModel, lines: list[str], told: bool):
    house = House(tiny_model, door=Door(log_texts=told))

    async def ask(client: Client) -> list[httpx.Response]:
        body = {"messages": [{"role": "user", "content": "my secret"}], "answers": ["hush", 7], "profile": None}
        bad = {"messages": "my secret", "answrs": ["hush"]}
        found = [await client.post("/v1/rewards", json=b, headers={"X-Request-ID": "mine.1"}) for b in (body, bad)]
        return [*found, await client.post("/my-secret", json=body, headers={"X-Request-ID": "my secret"})]

    replies = house.run(ask)
    assert [r.headers["x-request-id"] for r in replies[:2]] == ["mine.1"] * 2
    assert replies[2].headers["x-request-id"] != "my secret"
    found = [json.loads(line) for line in lines]
    assert [(f["event"], f["status"], f["route"]) for f in found] == [
        ("request", 200, "/v1/rewards"),
        ("request", 422, "/v1/rewards"),
        ("request", 404, "other"),
    ]
    assert found[0]["id"] == "mine.1"
    assert ("my secret" in "".join(lines)) == ("hush" in "".join(lines)) == told


def test_a_fault_is_logged_by_type_and_place_without_what_it_quotes(
    house: House, monkeypatch: pytest.MonkeyPatch, lines: list[str]
):
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("my secret")

    monkeypatch.setattr(house.service, "score", broken)
    reply = house.post({"conversations": talks(1)})
    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "fault")
    fault = json.loads(lines[0])
    assert (fault["event"], fault["error"]) == ("fault", "RuntimeError")
    assert any("test_serving.py" in place for place in fault["where"])
    assert "secret" not in "".join(lines)


# -- the end, the address ------------------------------------------------------------------------------------------------------


def test_a_closed_door_answers_what_is_inside_and_nothing_new(house: House, monkeypatch: pytest.MonkeyPatch):
    held = Held(house, monkeypatch)

    async def ask(client: Client) -> None:
        first = asyncio.create_task(client.post("/v1/rewards", json={"conversations": talks(4)}))
        await held.seen()
        house.door.closed = True
        late = await client.post("/v1/rewards", json={"conversations": talks(1)})
        assert late.status_code == 503
        assert late.headers["retry-after"] == "1"
        assert late.headers["connection"] == "close"
        assert [(await client.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 503]
        held.go.set()
        assert (await first).status_code == 200

    house.run(ask)


def test_only_this_machine_is_let_in_without_a_key():
    for host in ("127.0.0.1", "localhost"):
        with listen(host, 0, open_to_all=False) as found:
            assert found.getsockname()[0].startswith("127.") or found.getsockname()[0] == "::1"
    for host in ("0.0.0.0", "::", ""):
        with pytest.raises(DataError, match="--no-key"):
            listen(host, 0, open_to_all=False)
    with listen("0.0.0.0", 0, open_to_all=True) as found:
        found.listen()
        with pytest.raises(DataError, match="another port"):
            listen("0.0.0.0", found.getsockname()[1], open_to_all=True)
    with pytest.raises(DataError, match="name an address"):
        listen("x" * 70, 0, open_to_all=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_reply_is_sent_at_once(host: str):
    async def accepted() -> int:
        loop, found = asyncio.get_running_loop(), list[int]()

        class Peer(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                found.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()

        server = await loop.create_server(Peer, sock=listening)
        async with server:
            reader, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            await reader.read()
            writer.close()
        return found[0]

    try:
        listening = listen(host, 0, open_to_all=False)
    except DataError:
        pytest.skip(f"this machine has no {host}")
    with listening:
        assert asyncio.run(accepted()) != 0  # else a small one waits 40 ms for the client's acknowledgement of the one before


def test_profiles_are_named_by_their_files_stems(tmp_path: Path):
    files = [tmp_path / "a" / "careful.yaml", tmp_path / "b" / "careful.yaml"]
    for file in files:
        file.parent.mkdir()
        file.write_text("name: other\ndrop: [verbosity]\n")
    assert read_profiles(files[:1])["careful"].drop == ("verbosity",)
    with pytest.raises(RecipeError, match="another profile called careful"):
        read_profiles(files)


def test_the_service_is_one(house: House):
    assert isinstance(house.service, Service)
