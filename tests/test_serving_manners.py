"""What a server says of requests that are a little wrong, and what it counts them as."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from armorm.model.reward_model import RewardModel
from armorm.serving import stopping
from armorm.serving.app import create_app
from armorm.serving.door import Door
from armorm.serving.keys import Keys
from armorm.serving.local import LocalService
from armorm.serving.service import Limits

KEY = "a-key-of-mine"
HEADERS = {"X-API-Key": KEY, "content-type": "application/json"}
POSTS = (
    *("/v1/rewards", "/v1/compare", "/v1/audit", "/v1/profiles/check", "/get_reward", "/slime", "/v1/score/evaluation"),
    *("/pooling", "/score", "/v1/rerank", "/v1/embeddings", "/predict", "/classify", "/rerank"),
)


@pytest.fixture(scope="module")
def client(tiny_model: RewardModel) -> Iterator[TestClient]:
    service = LocalService(tiny_model.engine(), "tiny")
    with TestClient(create_app(service, Door(Limits(body_bytes=2000), Keys.of([KEY])))) as found:
        yield found


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("query", "told"),
    [("prfile=careful", "prfile"), (f"api_key={KEY}", "`api_key` stands there 2 times: send it once")],
    ids=["unknown", "twice"],
)
def test_a_query_that_no_route_knows_or_that_stands_there_twice_is_refused(client: TestClient, path: str, query: str, told: str):
    reply = client.post(f"{path}?{query}&api_key={KEY}", content="{}", headers=HEADERS)
    assert reply.status_code in (400, 422)
    assert told in reply.text
    assert KEY not in reply.text


def test_a_profile_in_the_url_of_a_route_that_takes_it_in_the_body_is_refused(client: TestClient):
    reply = client.post("/v1/rewards?profile=careful", json={"conversations": []}, headers=HEADERS)
    assert reply.status_code == 422
    assert "stands in the body" in reply.json()["error"]["message"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_not_sent_as_json_hears_so(client: TestClient, path: str, kind: str):
    reply = client.post(path, content=b"{}", headers={"X-API-Key": KEY, **({"content-type": kind} if kind else {})})
    assert reply.status_code in (400, 422)
    assert "content-type: application/json" in reply.text


def test_the_last_of_two_rewards_in_the_url_is_not_taken_in_silence(client: TestClient):
    reply = client.post("/slime?unscorable=-1&unscorable=-2", json={"prompt": "hello", "response": ""}, headers=HEADERS)
    assert reply.status_code == 422
    assert "`unscorable` stands there 2 times" in reply.json()["detail"]


@pytest.mark.parametrize("path", POSTS)
def test_a_compressed_body_hears_which_header_is_meant(client: TestClient, path: str):
    for kind in ("gzip", "br", "identity, gzip"):
        reply = client.post(path, content=gzip.compress(b"{}"), headers={**HEADERS, "content-encoding": kind})
        assert reply.status_code == 415, reply.text
        assert f"content-encoding: {kind}" in reply.text
    plain = [client.post(path, content=b"{}", headers=HEADERS | more) for more in ({}, {"content-encoding": "Identity"})]
    assert plain[0].status_code == plain[1].status_code != 415


MESSAGE = {"role": "assistant", "content": "x"}


@pytest.mark.parametrize("wrong", [MESSAGE, [MESSAGE], {"content": "x"}, None, 7])
def test_an_answer_that_is_no_text_hears_that_answers_are_texts(client: TestClient, wrong: Any):
    asked = {"messages": [{"role": "user", "content": "hello"}]}
    reply = client.post("/v1/rewards", json=asked | {"answers": ["fine", wrong]}, headers=HEADERS)
    sound, refused = reply.json()["results"]
    assert "score" in sound
    assert "answers are texts" in refused["error"]["message"]
    told = client.post("/v1/compare", json=asked | {"a": "fine", "b": wrong}, headers=HEADERS)
    assert told.status_code == 400
    assert told.json()["error"]["message"].startswith("b: not-text: the answer is ")


def test_an_answer_in_parts_is_read_and_a_fault_in_the_prompt_stays_its_own(client: TestClient):
    asked = {"messages": [{"role": "user", "content": "hello"}], "answers": [[{"type": "text", "text": "fine"}]]}
    assert "score" in client.post("/v1/rewards", json=asked, headers=HEADERS).json()["results"][0]
    asked["messages"] = [{"role": "nobody", "content": "hello"}]
    told = client.post("/v1/rewards", json=asked, headers=HEADERS).json()["results"][0]["error"]
    assert told["type"] == "unknown-role"


def test_a_path_with_one_slash_more_is_none_and_nothing_repeats_the_key(client: TestClient):
    reply = client.post(f"/v1/rewards/?api_key={KEY}", content="{}", headers=HEADERS, follow_redirects=False)
    assert reply.status_code == 404
    assert KEY not in reply.text + str(reply.headers)


def test_head_is_answered_where_get_is_without_a_key(client: TestClient):
    for path in ("/", "/healthz", "/readyz", "/page/page.js"):
        assert client.head(path).status_code == client.get(path).status_code == 200, path


def test_what_the_door_refuses_is_counted_under_the_route_that_was_meant(client: TestClient):
    assert client.post("/v1/compare", content="{}").status_code == 401
    assert client.post("/v1/audit", content=b" " * 3000, headers=HEADERS).status_code == 413
    assert client.get("/nothing").status_code == 401
    counters = client.get("/metrics", headers=HEADERS).text
    for route, status in (("/v1/compare", 401), ("/v1/audit", 413), ("other", 401)):
        assert f'armorm_requests_total{{route="{route}",status="{status}"}} 1.0' in counters


# -- few descriptors -------------------------------------------------------------------------------------------------------------


class Connection(SimpleNamespace):
    """A connection that says nothing."""

    __hash__ = object.__hash__

    def __init__(self) -> None:
        super().__init__(cycle=None, transport=SimpleNamespace(close=lambda: setattr(self, "closed", True)), closed=False)


def test_beyond_what_descriptors_allow_the_oldest_silent_connections_are_closed_with_one_line(monkeypatch: pytest.MonkeyPatch):
    told: list[Any] = []
    monkeypatch.setattr(stopping, "tell", lambda event, **facts: told.append((event, facts)))
    monkeypatch.setattr(stopping, "descriptors", lambda: stopping.SPARE + 100)
    server = stopping.Server(stopping.uvicorn.Config(app="none:none", log_config=None), Door(), lambda: None)
    connections = [Connection() for _ in range(150)]
    for connection in connections:
        server.server_state.connections.add(connection)
        server._close_silent()  # they are seen one after another
        server.server_state.connections -= {one for one in connections if one.closed}
    assert [one.closed for one in connections] == [True] * 50 + [False] * 100
    assert [event for event, _ in told] == ["too-many-connections"]


def test_connections_that_can_not_be_taken_are_no_tracebacks(monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    monkeypatch.setattr(stopping, "tell", lambda event, **_: told.append(event))
    server = stopping.Server(stopping.uvicorn.Config(app="none:none", log_config=None), Door(), lambda: None)
    connections = [Connection() for _ in range(stopping.SPARE + 10)]
    server.server_state.connections.update(connections)
    server._close_silent()
    others: list[Any] = []
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(loop, "default_exception_handler", others.append)
    for _ in range(1000):
        server._on_fault(loop, {"exception": OSError(24, "Too many open files"), "message": "socket.accept()"})
    assert sum(one.closed for one in connections) == stopping.SPARE
    assert told == ["too-many-connections"]
    assert others == []
    server._on_fault(loop, {"exception": OSError(5, "another")})
    assert len(others) == 1
    loop.close()
