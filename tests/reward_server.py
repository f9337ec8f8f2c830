"""A server of rewards on the loopback interface, by the contract of `POST /v1/rewards`, that fails as a test tells it to.

In: a reward model.  Out: its URL, and every request.  Cost: one pass of the model for each request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from armorm.model.reward_model import RewardModel
from armorm.scoring.profile import Profile

Reply = tuple[int, dict[str, str], bytes]
"""Status, headers, body. A status of 0 closes the connection."""


@dataclass
class Served:
    """The server's side: bodies and headers of all requests, and replies that come first in place of rewards."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    first: list[Reply] = field(default_factory=list)
    most: int = 10**9
    """Conversations that one request may hold: 413 beyond."""
    tells: list[tuple[str, float]] = field(default_factory=list)
    """Which models answer in turn, of which the last stays: each one's digest, and what is added to its scores."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        self.bodies, self.headers, self.first, self.most = [], [], [], 10**9
        self.tells = []


def refusal(status: int, message: str = "no", **headers: str) -> Reply:
    body = {"error": {"type": "refused", "message": message, "request_id": "r"}}
    return status, headers, json.dumps(body).encode()


@contextmanager
def reward_server(model: RewardModel) -> Iterator[Served]:
    """Serves on a free port until the block ends."""
    served = Served()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served, _rewards(model)))
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _rewards(model: RewardModel) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        given = body.get("profile")
        profile = Profile.from_json(given) if isinstance(given, dict) else None
        table = model.engine().score(body["conversations"], profile=profile)
        results = []
        for i, fault in enumerate(table.faults):
            if fault is not None:
                results.append({"index": i, "error": {"type": fault.partition(":")[0], "message": fault}})
                continue
            score = table[i]
            parts = {"rewards": dict(score.rewards), "contributions": dict(score.contributions)}
            results.append({"index": i, "score": score.score, "tokens": 1, "truncated": False, **(body.get("details") and parts)})
        return {"model": "tiny", "objectives": list(model.objectives.names), "results": results}

    return answer


def _told(facts: dict[str, Any], model: tuple[str, float] = ("", 0.0)) -> Reply:
    digest, more = model
    results = [one | {"score": one["score"] + more} if "score" in one else one for one in facts["results"]]
    headers = {"x-armorm-model": digest} if digest else {}
    return 200, headers, json.dumps(facts | {"results": results}).encode()


def _handler(served: Served, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with served.lock:
                served.bodies.append(body)
                served.headers.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
                planned = served.first.pop(0) if served.first else None
                tells = () if planned else served.tells[:1]
                if tells and len(served.tells) > 1:
                    del served.tells[0]
            if planned is None:
                large = len(body["conversations"]) > served.most
                planned = refusal(413, "too large") if large else _told(answer(body), *tells)
            status, headers, data = planned
            if status == 0:
                return
            self.send_response(status)
            for name, value in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: Any) -> None:
            pass

    return Handler
