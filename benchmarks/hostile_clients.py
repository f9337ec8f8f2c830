"""What ordinary clients of `armorm serve` see beside hostile ones, over a full queue, and when the server is told to end.

    python benchmarks/hostile_clients.py --model MODEL [--file PAIRS.jsonl.gz] [--seconds 20] [--malformed 100000] [--nice 19]

Four ordinary clients ask for the scores of pairs in a closed loop, first by themselves and then beside one attack at a time, each
from a process of its own: bodies that trickle in, bodies of 64 MiB, connections that are closed by half, and malformed requests
(no HTTP, no JSON, the wrong form, nested too deep, no such route). `--nice` says how far the attackers give way on the machine
that they share with the server; without it, as if they had one of their own. Then another server with little room in its queue
has 64 clients at once, and a third one, three times, gets SIGTERM while 32 clients wait. Without `--file`, the helpful pairs in
ARMORM_DATA. Exit code 1 where a request of an ordinary client failed, anybody heard a 5xx that was none of the door's, or a
request that was let in was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from measuring import Figure, write_results
from serving import MiB, free_port, helpful_pairs, pairs_of, running, server

ORDINARY, MANY, WAITING = 4, 64, 32
HEAD = b"POST /v1/rewards HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
HUGE = 64 * MiB
MALFORMED = (
    (b"\x16\x03\x01 no HTTP at all\r\n\r\n", True),
    *((HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body, False) for body in (b"\x00", b"{", b"[" * 300, b'{"x": 1}')),
    (b"GET /no/such/route HTTP/1.1\r\nHost: here\r\n\r\n", False),
)
"""What is sent, and whether the server closes the connection after it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--malformed", type=int, default=100_000)
    parser.add_argument("--nice", type=int, default=19)
    given = parser.parse_args()
    bodies = [{"conversations": pair} for pair in pairs_of(given.file or helpful_pairs(), 2000)]
    beside = asyncio.run(beside_attacks(given.model, bodies, given.seconds, given.malformed, given.nice))
    full = asyncio.run(over_a_full_queue(given.model, bodies, given.seconds))
    ends = [asyncio.run(told_to_end(given.model, bodies)) for _ in range(3)]
    command = f"hostile_clients.py --model MODEL --seconds {given.seconds:g} --malformed {given.malformed} --nice {given.nice}"
    facts = {"command": command, "model": Path(given.model).name, "beside": beside, "full_queue": full, "ends": ends}
    write_results("hostile_clients", facts, list(figures(beside, full, ends)))
    wrong = [name for name, one in beside.items() if one["failed"] or any(c.startswith("5") for c in one["attack"])]
    wrong += ["full queue"] * bool(set(full["statuses"]) - {"200", "429"} or full["after"] != 200 or not full["told_when"])
    wrong += ["end"] * any(one["lost"] or one["code"] for one in ends)
    if wrong:
        raise SystemExit(f"not as it should be: {', '.join(wrong)}")


def figures(beside: dict[str, Any], full: dict[str, Any], ends: list[dict[str, Any]]) -> Iterator[Figure]:
    """The table's lines."""
    alone = beside["nobody"]
    for name, one in beside.items():
        yield Figure(f"ordinary clients beside {name}: 95 of 100 answers within", one["p95"], "s", "beside nobody", alone["p95"])
        yield Figure(f"ordinary clients beside {name}: failed of {one['requests']}", one["failed"], "requests", aim="0")
    yield Figure("a full queue: refused with 429", full["statuses"].get("429", 0), "requests")
    yield Figure(
        "told to end under load: requests that were let in and lost", sum(one["lost"] for one in ends), "requests", aim="0"
    )


# -- beside attacks ------------------------------------------------------------------------------------------------------------


async def beside_attacks(model: str, bodies: list[Any], seconds: float, malformed: int, nice: int) -> dict[str, Any]:
    """By attack: what the ordinary clients saw, what the attack heard, and the server's memory after it."""
    found = {}
    port = free_port()
    with running(server(model, str(port)), port) as process:
        for name in ("nobody", *ATTACKS):
            amount = str(malformed if name == "malformed requests" else seconds)
            words = ["nice", "-n", str(nice), sys.executable, __file__, name, str(port), amount]
            attack = None if name == "nobody" else await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
            ended = asyncio.sleep(seconds) if attack is None else attack.communicate()
            saw, told = await ordinary(port, bodies, ended)
            heard = json.loads(told[0]) if attack is not None else {}
            resident = psutil.Process(process.pid).memory_info().rss / MiB
            found[name] = {**saw, "attack": heard, "resident_mib": resident}
            print(name, json.dumps(found[name]), flush=True)
    return found


async def ordinary(port: int, bodies: list[Any], ended: Awaitable[Any]) -> tuple[dict[str, Any], Any]:
    """What clients in a closed loop see until something has ended, and what that returned."""
    todo, waits, failed, over = cycle(bodies), list[float](), Counter[str](), asyncio.Event()

    async def client() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300) as http:
            while not over.is_set():
                start = time.perf_counter()
                try:
                    reply = await http.post("/v1/rewards", json=next(todo))
                    told = "" if reply.status_code == 200 else str(reply.status_code)
                except httpx.TransportError as error:
                    told = type(error).__name__
                if told:
                    failed[told] += 1
                else:
                    waits.append(time.perf_counter() - start)

    clients = asyncio.gather(*(client() for _ in range(ORDINARY)))
    begin = time.perf_counter()
    told = await ended
    spent = time.perf_counter() - begin
    over.set()
    await clients
    p50, p95, most = np.quantile(waits, [0.5, 0.95, 1.0]).tolist()
    counts = {"requests": len(waits), "failed": failed.total(), "failures": dict(failed), "seconds": spent}
    return {**counts, "p50": p50, "p95": p95, "longest": most}, told


async def slow_bodies(port: int, seconds: float) -> Counter[str]:
    """200 connections that send a byte of their body every half second."""
    until = time.perf_counter() + seconds

    async def one() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(OSError):
            writer.write(HEAD + b"Content-Length: 100000\r\n\r\n{")
            while time.perf_counter() < until and not reader.at_eof():
                await asyncio.sleep(0.5)
                writer.write(b" ")
                await writer.drain()
        return await _status(reader, writer)

    return Counter(await asyncio.gather(*(one() for _ in range(200))))


async def huge_bodies(port: int, seconds: float) -> Counter[str]:
    """Four clients that send bodies of 64 MiB, one that says so in its head and one in chunks by turns."""
    until, heard = time.perf_counter() + seconds, Counter[str]()
    piece = b" " * MiB

    async def one(chunked: bool) -> None:
        while time.perf_counter() < until:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with suppress(OSError):
                said = b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % HUGE
                writer.write(HEAD + said)
                for _ in range(HUGE // MiB):
                    writer.write(b"%x\r\n%b\r\n" % (MiB, piece) if chunked else piece)
                    await writer.drain()
            heard[await _status(reader, writer)] += 1

    await asyncio.gather(*(one(i % 2 == 0) for i in range(4)))
    return heard


async def half_closed(port: int, seconds: float) -> Counter[str]:
    """Connections by the hundred, closed in their sending half: after nothing, half a head, half a body, or a whole request."""
    until, heard = time.perf_counter() + seconds, Counter[str]()
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "answers": ["Hi."]}).encode()
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    while time.perf_counter() < until:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        for i, (_, writer) in enumerate(held):
            writer.write((b"", HEAD[:30], whole[:-5], whole)[i % 4])
            writer.write_eof()
        heard.update(await asyncio.gather(*(_status(*one) for one in held)))
    return heard


async def malformed(port: int, count: float) -> Counter[str]:
    """So many malformed requests over 16 connections, as fast as they are refused."""
    heard, left = Counter[str](), iter(range(int(count)))

    async def one() -> None:
        reader: asyncio.StreamReader | None = None
        for i in left:
            said, closes = MALFORMED[i % len(MALFORMED)]
            if reader is None or reader.at_eof():
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            status = "closed"
            with suppress(OSError, asyncio.IncompleteReadError):
                writer.write(said)
                head = await reader.readuntil(b"\r\n\r\n")
                status = head.split(b" ", 2)[1].decode()
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
                await reader.readexactly(0 if closes else int(fields.get(b"content-length", 0)))
                if closes or fields.get(b"connection") == b"close":
                    reader = None
                    writer.close()
            heard[status] += 1

    await asyncio.gather(*(one() for _ in range(16)))
    return heard


async def _status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    # What the server says in the end; "closed" where it says nothing more.
    try:
        line = await asyncio.wait_for(reader.readline(), 60)
        return line.split(b" ", 2)[1].decode() if line else "closed"
    except OSError:
        return "closed"
    except TimeoutError:
        return "nothing"
    finally:
        writer.close()


ATTACKS: dict[str, Callable[[int, float], Awaitable[Counter[str]]]] = {
    "slow bodies": slow_bodies,
    "huge bodies": huge_bodies,
    "half-closed connections": half_closed,
    "malformed requests": malformed,
}


# -- a full queue, and the end -------------------------------------------------------------------------------------------------


async def over_a_full_queue(model: str, bodies: list[Any], seconds: float) -> dict[str, Any]:
    """Statuses of clients by the dozen at a queue of 4,096 tokens, what they were told to wait, and one request afterwards."""
    port = free_port()
    with running(server(model, str(port), "--queue-tokens", "4096"), port) as process:
        statuses, told, todo = Counter[str](), list[float](), cycle(bodies)
        until = time.perf_counter() + seconds

        async def client() -> None:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300) as http:
                while time.perf_counter() < until:
                    reply = await http.post("/v1/rewards", json=next(todo))
                    statuses[str(reply.status_code)] += 1
                    if reply.status_code == 429:
                        told.append(float(reply.headers["retry-after"]))
                        await asyncio.sleep(0.2)  # sooner than told

        await asyncio.gather(*(client() for _ in range(MANY)))
        start = time.perf_counter()
        after = httpx.post(f"http://127.0.0.1:{port}/v1/rewards", json=bodies[0], timeout=300).status_code
        found = {
            "clients": MANY,
            "statuses": dict(statuses),
            "told_when": bool(told) and min(told) >= 1,
            "after": after,
            "after_seconds": time.perf_counter() - start,
            "resident_mib": psutil.Process(process.pid).memory_info().rss / MiB,
        }
    print("full queue", json.dumps(found), flush=True)
    return found


async def told_to_end(model: str, bodies: list[Any]) -> dict[str, Any]:
    """SIGTERM once the metrics say that all clients were let in: how many had their answers, and the exit code."""
    port = free_port()
    with running(server(model, str(port)), port) as process:

        async def client(body: Any) -> str:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300) as http:
                try:
                    return str((await http.post("/v1/rewards", json=body)).status_code)
                except httpx.TransportError as error:
                    return type(error).__name__

        waiting = [asyncio.create_task(client(body)) for body in bodies[:WAITING]]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            while (inside := _inside((await http.get("/metrics")).text)) + sum(one.done() for one in waiting) < WAITING:
                await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        late = await client(bodies[0])
        statuses = Counter(await asyncio.gather(*waiting))
        code = await asyncio.to_thread(process.wait, 120)
    found = {"clients": WAITING, "inside": inside, "statuses": dict(statuses), "late": late, "code": code}
    print("told to end", json.dumps(found), flush=True)
    return {**found, "lost": WAITING - statuses["200"]}


def _inside(metrics: str) -> int:
    # The one that asks for the metrics aside.
    line = next(one for one in metrics.splitlines() if one.startswith("armorm_requests_inside "))
    return int(float(line.split()[1])) - 1


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ATTACKS:
        name, port, amount = sys.argv[1:4]
        print(json.dumps(asyncio.run(ATTACKS[name](int(port), float(amount)))))  # type: ignore[arg-type]
    else:
        main()
