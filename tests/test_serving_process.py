"""`armorm serve` in a process of its own: hostile clients that nobody notices, then the end under load, where nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from served import Running, serving

from armorm.errors import BackboneError
from armorm.model.reward_model import RewardModel
from armorm.scoring.engine import Engine
from armorm.serving import server, stopping

KEY = "a-key-of-mine"
REQUESTS = 600
"""Their lines are more than a pipe takes."""
BODY = {"messages": [{"role": "user", "content": "how are you?"}], "answers": [f"fine, thank you {i}." for i in range(40)]}


@pytest.fixture(scope="module")
def running(tiny_model: RewardModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    tiny_model.save_pretrained(folder / "model")
    (folder / "key").write_text(KEY)
    (folder / "careful.yaml").write_text("fix: {safe: 0.5}\n")
    limits = ("--max-body", 20_000, "--body-timeout", 3, "--batch-tokens", 256)
    words = ("--name", "tiny", "--api-key-file", folder / "key", "--profile", folder / "careful.yaml", *limits)
    with serving(folder / "model", *words) as found:
        yield found


def asking(running: Running) -> httpx.Client:
    return httpx.Client(base_url=running.url, headers={"X-API-Key": KEY}, timeout=300)


@pytest.fixture
def place(running: Running) -> tuple[str, int]:
    parts = urlsplit(running.url)
    return str(parts.hostname), int(parts.port or 0)


def test_a_server_gives_the_models_scores(running: Running, tiny_model: RewardModel):
    with asking(running) as client:
        found = client.post("/v1/rewards", json=BODY).json()["results"]
        asked = client.get("/v1/models").json()["data"][0]
        assert client.post("/v1/rewards", json={**BODY, "profile": "careful"}).status_code == 200
    expected = tiny_model.score([[*BODY["messages"], {"role": "assistant", "content": text}] for text in BODY["answers"]])
    assert [one["score"] for one in found] == pytest.approx([one.score for one in expected], abs=1e-5)
    assert (asked["id"], asked["profiles"]) == ("tiny", ["careful"])


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux")
def test_the_thread_that_talks_with_clients_gives_way_to_the_decoder(running: Running):
    process = psutil.Process(running.process.pid)
    with asking(running) as client:
        before = {thread.id: thread.user_time for thread in process.threads()}
        while True:
            assert client.post("/v1/rewards", json=BODY).status_code == 200
            spent = {thread.id: thread.user_time - before.get(thread.id, 0.0) for thread in process.threads()}
            decoder = max(spent, key=lambda thread: spent[thread] if thread != process.pid else 0.0)
            if spent[decoder] > 0.2:
                break
    assert os.getpriority(os.PRIO_PROCESS, decoder) == os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == max(server.NICENESS, os.getpriority(os.PRIO_PROCESS, 0))


def test_hostile_clients_are_noticed_by_nobody(running: Running, place: tuple[str, int]):
    head = f"POST /v1/rewards HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n".encode()
    sockets = [socket.create_connection(place) for _ in range(60)]
    for i, one in enumerate(sockets):
        if i % 4 == 0:
            one.sendall(head[: 10 + i])  # half a head
        elif i % 4 == 1:
            one.sendall(head + b"Content-Length: 5000\r\n\r\n{")  # a body that does not come
        elif i % 4 == 2:
            body = json.dumps(BODY).encode()
            one.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            one.shutdown(socket.SHUT_WR)  # asks, and closes its half
        # and one that says nothing
    stop, sent = threading.Event(), [0]

    def malformed() -> None:
        with asking(running) as client:
            bodies = [b"\x00", b"[" * 15_000, b'{"conversations": [[[]]], "x": 1}', b"x" * 40_000]
            while not stop.is_set():
                reply = client.post("/v1/rewards", content=bodies[sent[0] % 4], headers={"content-type": "application/json"})
                assert reply.status_code in (400, 413, 422)
                sent[0] += 1

    with ThreadPoolExecutor(1) as pool, asking(running) as client:
        flood = pool.submit(malformed)
        while sent[0] < 8:
            assert not flood.done(), flood.exception()
            time.sleep(0.01)
        assert [client.post("/v1/rewards", json=BODY).status_code for _ in range(5)] == [200] * 5
        assert client.get("/healthz").status_code == 200
        stop.set()
        flood.result(timeout=300)
    slow = sockets[1]
    slow.settimeout(120)
    assert slow.recv(100).startswith(b"HTTP/1.1 408")
    raw = socket.create_connection(place)
    raw.sendall(b"nonsense\r\n\r\n")
    assert raw.recv(100).startswith(b"HTTP/1.1 400")
    for one in (*sockets, raw):
        one.close()
    assert not [line for line in running.log if line.get("status") == 500 or line["event"] in ("fault", "text")]


def test_a_log_that_nobody_reads_holds_nobody_up(running: Running):
    before = len(running.log)
    with filled_log(running):
        pass
    wait_until(lambda: len(running.log) >= before + REQUESTS)
    assert {line["event"] for line in running.log[before:]} == {"request"}


@contextmanager
def filled_log(running: Running) -> Iterator[httpx.Client]:
    """Nobody reads, and more is told than a pipe takes."""
    running.reading.clear()
    try:
        with asking(running) as client:
            assert {client.get("/healthz").status_code for _ in range(REQUESTS)} == {200}
            yield client
    finally:
        running.reading.set()


def wait_until(so: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not so():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_at_the_end_what_was_accepted_is_answered_and_the_code_is_0(running: Running):
    answered: list[int] = []
    lost: list[str] = []
    started = threading.Semaphore(0)
    over = threading.Event()

    def client_of(_: int) -> None:
        with asking(running) as client:
            while not over.is_set():
                started.release()
                try:
                    reply = client.post("/v1/rewards", json=BODY)
                except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError) as error:
                    lost.append(type(error).__name__)
                    return
                answered.append(reply.status_code)
                if reply.status_code == 200:
                    assert len(reply.json()["results"]) == 40
                else:
                    return

    with asking(running) as client:  # slow clients of the tests before have to be gone
        wait_until(lambda: "armorm_requests_inside 1.0" in client.get("/metrics").text)
    before = len(running.log)
    with ThreadPoolExecutor(16) as pool:
        clients = [pool.submit(client_of, i) for i in range(16)]
        for _ in range(32):
            assert started.acquire(timeout=300)
        code = running.end()
        over.set()
        for one in clients:
            one.result(timeout=300)
    log = running.log[before:]
    (draining,) = (i for i, line in enumerate(log) if line["event"] == "draining")
    inside = log[draining]["requests"]
    assert code == 0
    assert inside > 0
    ended = [line["status"] for line in log if line["event"] == "request" and line["route"] == "/v1/rewards"]
    assert set(ended) <= {200, 503}
    assert set(answered) <= {200, 503}
    # Every request that the server let in has its answer at the client: none of the errors is of one.
    assert answered.count(200) == ended.count(200)
    assert sum(line["status"] == 200 for line in log[draining:] if line.get("route") == "/v1/rewards") >= 1
    assert KEY not in json.dumps(running.log)


@pytest.mark.parametrize("signals", [1, 2])
def test_signals_act_where_nobody_reads_the_log(tiny_model: RewardModel, tmp_path: Path, signals: int):
    tiny_model.save_pretrained(tmp_path / "model")
    with serving(tmp_path / "model", "--body-timeout", 3 if signals == 1 else 300) as running, filled_log(running) as client:
        at = urlsplit(running.url)
        with socket.create_connection((at.hostname, at.port)) as slow:
            slow.sendall(b"POST /v1/rewards HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
            assert slow.recv(100).startswith(b"HTTP/1.1 100")  # it is inside: its body is waited for
            running.process.send_signal(signal.SIGTERM)
            if signals == 1:
                assert slow.recv(100).startswith(b"HTTP/1.1 408")
                assert running.process.wait(timeout=300) == 0
            else:
                wait_until(lambda: client.get("/v1/models").status_code == 503)
                assert running.end() == 130


def test_a_server_that_can_not_be_says_why_before_the_model_is_loaded(armorm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code, _, told = armorm("serve", tmp_path / "nothing", "--host", "0.0.0.0", "--port", 0)
    assert code == 2
    assert "--no-key" in told
    code, _, told = armorm("serve", tmp_path / "nothing", "--port", 0)
    assert code == 2
    assert "nothing" in told
    code, _, told = armorm("serve", tmp_path / "nothing", "--api-key-env", "NO_SUCH_KEY")
    assert code == 2
    assert "NO_SUCH_KEY" in told
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    monkeypatch.delitem(__import__("sys").modules, "armorm.serving.stopping", raising=False)
    code, _, told = armorm("serve", tmp_path / "nothing", "--port", 0)
    assert code == 2
    assert "pip install 'armorm[serve]'" in told


@pytest.mark.parametrize("how", ["{{ raise_exception('no') }}", "{{ 1/0 }}", "", "not finite"])
def test_a_model_that_can_not_score_never_begins(
    armorm, tiny_model: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
):
    monkeypatch.setattr(stopping, "run", lambda *_: pytest.fail("it began"))
    tiny_model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "SHA256SUMS").unlink(missing_ok=True)  # the change is meant
    if how == "not finite":

        def fails(*_: object, **__: object) -> None:
            raise BackboneError("features are not finite")

        monkeypatch.setattr(Engine, "score", fails)
    else:
        (tmp_path / "model" / "chat_template.jinja").write_text(how)
    code, out, told = armorm("serve", tmp_path / "model", "--port", 0)
    assert (code, out) == (2, ""), told
    assert "error:" in told
    assert '"event"' not in told
    assert "Traceback" not in told
