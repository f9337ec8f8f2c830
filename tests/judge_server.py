"""A chat-completions endpoint on the loopback interface that answers, stalls, errs and babbles as a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What is sent back. `drop` closes the connection instead; `after` seconds pass first."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    after: float = 0.0


def says(text: Any, *, tokens: tuple[int, int] | None = (10, 3), finish: str = "stop", after: float = 0.0) -> Reply:
    """A chat completion as the specification has it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    facts: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    if tokens:
        facts["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return Reply(json.dumps(facts).encode(), after=after)


def refuses(status: int, message: str = "no", **facts: Any) -> Reply:
    """An error as the specification has it; `headers` besides."""
    headers = facts.pop("headers", {})
    return Reply(json.dumps({"error": {"message": message, **facts}}).encode(), status, headers)


DROPPED = Reply(b"", drop=True)


@dataclass(frozen=True)
class Request:
    """One request: its prompt's text, body, how often it came before, headers by lower-case name, and the time."""

    prompt: str
    body: dict[str, Any]
    before: int
    headers: dict[str, str]
    at: float


@dataclass
class Judge:
    """The server's side: every request in order, how many were under way at once, and how often each prompt got a completion."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    most_at_once: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def sent(self) -> Counter[str]:
        return Counter(r.prompt for r in self.requests)


class Server(ThreadingHTTPServer):
    """Takes many callers at once: beyond the usual queue of 5, a connection's second attempt comes a second later."""

    request_queue_size = 128
    daemon_threads = True


@contextmanager
def judge_server(answer: Callable[[Request], Reply]) -> Iterator[Judge]:
    """Serves on a free port until the block ends."""
    judge = Judge()
    server = Server(("127.0.0.1", 0), _handler(judge, answer))
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(judge: Judge, answer: Callable[[Request], Reply]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt = "".join(m["content"] for m in body["messages"])
            with judge._lock:
                request = Request(
                    prompt, body, judge.sent[prompt], {k.lower(): v for k, v in self.headers.items()}, time.monotonic()
                )
                judge.requests.append(request)
                judge._at_once += 1
                judge.most_at_once = max(judge.most_at_once, judge._at_once)
            try:
                reply = answer(request)
                time.sleep(reply.after)
            finally:
                with judge._lock:
                    judge._at_once -= 1
            self._send(request, reply)

        def _send(self, request: Request, reply: Reply) -> None:
            if reply.drop:
                self.close_connection = True
                return
            try:
                self.send_response(reply.status)
                for name, value in ({"content-type": "application/json"} | reply.headers).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
            except OSError:  # the other side didn't wait
                self.close_connection = True
                return
            if reply.status == 200:
                with judge._lock:
                    judge.answered[request.prompt] += 1

        def log_message(self, *_args: Any) -> None:
            pass

    return Handler
