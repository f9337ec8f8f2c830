"""Load on `armorm serve` from another process: throughput beside the offline rate, waiting times, errors, memory.

    python benchmarks/serving.py --model MODEL [--file PAIRS.jsonl.gz] [--clients 32] [--seconds 180] [--vllm PYTHON]

In one run, on the same pairs: the scoring core alone in a process of its own (the offline rate), then a server and, over the
loopback, so many clients that each ask for the two scores of a pair as soon as they have the last ones. The same again for the
way that suggests itself, FastAPI around `model.score()`, and with `--vllm` for `vllm serve` with this package's plugin in the
environment of that python. A machine's speed drifts, so the offline rate is taken before and after each server, which is held
against the mean of the two. Memory is that of all of a server's processes; its growth is the most in the last third of the time
less the most in the third before. Before the load, one client asks alone for a twelfth of the time. Rates are conversations per
second that are answered after the first tenth of the time. The clients share the server's cores, so they are threads around
sockets whose bodies are written beforehand, and what they use is measured too.
Without `--file`, the helpful pairs in ARMORM_DATA.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import httpx
import numpy as np
import psutil
from measuring import RUN, Figure, measure, write_results

from armorm.model.scorer import ModelScorer

WINDOW = 256
"""Pairs that the offline way scores at once: 512 answers, as `armorm score` does."""
ANSWERS = 2
"""Conversations of a request."""
MiB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--vllm", metavar="PYTHON", help="the python of an environment that has vLLM and this package")
    given = parser.parse_args()
    file = given.file or helpful_pairs()

    def measure_offline() -> dict[str, float]:
        one = measure(offline_rate, given.model, file, given.pairs, given.seconds / 3, given.batch_tokens).value
        print(f"offline: {one['rate']:.2f} conversations/s, {one['tokens_per_second']:,.0f} tokens/s", flush=True)
        return one

    offline = [measure_offline()]
    port = str(free_port())
    ways = {
        "armorm serve": server(given.model, port, "--batch-tokens", str(given.batch_tokens)),
        "FastAPI around model.score()": [sys.executable, __file__, "--naive", given.model, port],
    }
    if given.vllm:
        program = str(Path(given.vllm).parent / "vllm")
        ways["vllm serve with the plugin"] = [program, "serve", given.model, "--runner", "pooling", "--port", port]
    bodies = [json.dumps({"conversations": pair}).encode() for pair in pairs_of(file, given.pairs)]
    loads = {}
    for name, command in ways.items():
        try:
            with running(command, int(port)) as process:
                alone = load(process, int(port), bodies, 1, given.seconds / 12)
                loads[name] = load(process, int(port), bodies, given.clients, given.seconds)
        except SystemExit as never:
            print(f"{name}: {never}", file=sys.stderr)
            continue
        offline.append(measure_offline())
        loads[name]["offline"] = (offline[-2]["rate"] + offline[-1]["rate"]) / 2
        loads[name]["alone"] = {quantile: alone[quantile] for quantile in ("p50", "p95", "p99")}
        loads[name]["of_offline"] = loads[name]["rate"] / loads[name]["offline"]
        print(name, json.dumps({k: v for k, v in loads[name].items() if k != "resident_mib"}), flush=True)
    facts = {"model": Path(given.model).name, "file": file.name, "clients": given.clients, "seconds": given.seconds}
    command = f"serving.py --model MODEL --clients {given.clients} --seconds {given.seconds:g}"
    write_results("serving", {"command": command, **facts, "offline": offline, "loads": loads}, figures(loads))


def figures(loads: dict[str, Any]) -> Iterator[Figure]:
    """The table's lines."""
    for name, one in loads.items():
        aim = "≥ 0.9 ×" if name == "armorm serve" else ""
        yield Figure(
            f"{name}: {len(one['resident_mib'])} s of load", one["rate"], "conversations/s", "offline", one["offline"], aim
        )
        yield Figure(f"{name}: 95 of 100 requests answered within", one["p95"], "s")
        yield Figure(f"{name}: half the requests of a client alone, within", one["alone"]["p50"], "s")
        yield Figure(f"{name}: of all cores, used by the clients themselves", 100 * one["own_share"], "%")
        yield Figure(f"{name}: resident memory, at most", one["resident_most_mib"], "MiB")
        yield Figure(f"{name}: of it, grown in the last third of the time", one["resident_growth_mib"], "MiB")


def server(model: str, port: str, *words: str) -> list[str]:
    """The command of this package's server."""
    return [*RUN, "serve", model, "--port", port, *words]


def helpful_pairs() -> Path:
    """Pairs of the real data, where no others are given."""
    return Path(os.environ["ARMORM_DATA"]) / "pairs" / "hh-helpful-train.jsonl.gz"


def pairs_of(file: Path, most: int) -> list[Any]:
    """Two conversations a row, drawn by a fixed seed."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    random.Random(0).shuffle(rows)
    return [[row["chosen"], row["rejected"]] for row in rows[:most]]


def offline_rate(model: str, file: str, most: int, seconds: float, batch_tokens: int) -> dict[str, float]:
    """Conversations and tokens a second of the scoring core alone, over as many windows as fit into the time."""
    pairs, scorer = pairs_of(Path(file), most), ModelScorer.load(model, batch_tokens=batch_tokens)
    scorer.score([conversation for pair in pairs[:4] for conversation in pair])
    rendered = scorer.model.renderer
    done, tokens, start = 0, 0, time.perf_counter()
    for at in range(0, len(pairs), WINDOW):
        window = [conversation for pair in pairs[at : at + WINDOW] for conversation in pair]
        scorer.score(window)
        done, spent = done + len(window), time.perf_counter() - start
        if spent > seconds:
            break
    tokens = sum(len(rendered.render(conversation)) for pair in pairs[: done // 2] for conversation in pair)
    return {"rate": done / spent, "tokens_per_second": tokens / spent, "conversations": done}


@contextmanager
def running(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process, once it takes requests. Raises SystemExit with the end of its log where it never does."""
    environment = {**os.environ, "VLLM_PLUGINS": "armorm", "VLLM_CPU_KVCACHE_SPACE": "4"}
    with TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            _await(process, port, log)
            yield process
        finally:
            process.terminate()
            process.wait(timeout=120)


def _await(process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    for _ in range(1200):
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 200:
                return
        if process.poll() is not None:
            break
        time.sleep(0.5)
    log.seek(0)
    raise SystemExit(f"{process.args} takes no requests:\n{log.read().decode(errors='replace')[-4000:]}")


def load(process: Any, port: int, bodies: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """What clients in a closed loop see: what is answered after the first tenth of the time counts.

    `own_share`: what the clients themselves computed, of all cores. They stand on the server's own machine, so they do little.
    """
    begin, computed = time.perf_counter(), time.process_time()
    counted, until = begin + seconds / 10, begin + seconds
    waits, errors = list[float](), Counter[str]()

    def client(number: int) -> None:
        todo = cycle(bodies[number:] + bodies[:number])
        with closing(HTTPConnection("127.0.0.1", port, timeout=300)) as http:
            while (start := time.perf_counter()) < until:
                told = ask(http, next(todo))
                if told != "ok":
                    errors[told] += 1
                elif counted <= (now := time.perf_counter()) < until:
                    waits.append(now - start)

    resident: list[float] = []

    def watch() -> None:
        whole = psutil.Process(process.pid)
        while time.perf_counter() < until:
            resident.append(sum(p.memory_info().rss for p in (whole, *whole.children(recursive=True))) / MiB)
            time.sleep(1)

    with ThreadPoolExecutor(clients + 1) as pool:
        for done in [pool.submit(watch), *(pool.submit(client, i * len(bodies) // clients) for i in range(clients))]:
            done.result()
    third = max(1, len(resident) // 3)
    quantiles = np.quantile(waits, [0.5, 0.95, 0.99]).tolist() if waits else [0.0, 0.0, 0.0]
    return {
        "rate": ANSWERS * len(waits) / (until - counted),
        "requests": len(waits),
        "errors": dict(errors),
        **dict(zip(("p50", "p95", "p99"), quantiles, strict=True)),
        "own_share": (time.process_time() - computed) / (time.perf_counter() - begin) / (os.cpu_count() or 1),
        "resident_most_mib": max(resident),
        "resident_growth_mib": max(resident[-third:]) - max(resident[third:-third] or [0.0]),
        "resident_mib": [round(x, 1) for x in resident],
    }


def ask(http: HTTPConnection, body: bytes) -> str:
    """What came of a request: "ok" where each answer has its score, else the status or the error's name."""
    try:
        http.request("POST", "/v1/rewards", body, {"content-type": "application/json"})
        with http.getresponse() as reply:
            said = reply.read()
        whole = reply.status == 200 and sum("score" in one for one in json.loads(said)["results"]) == ANSWERS
        return "ok" if whole else str(reply.status)
    except (OSError, HTTPException) as error:
        http.close()  # the next request connects again
        return type(error).__name__


def naive(model: str, port: str) -> None:
    """What one would write: a model, a route, a call."""
    import uvicorn
    from fastapi import FastAPI

    app, scorer = FastAPI(), ModelScorer.load(model)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {}

    @app.post("/v1/rewards")
    def rewards(body: dict[str, Any]) -> dict[str, Any]:
        return {"results": [{"score": score.score} for score in scorer.model.score(body["conversations"])]}

    uvicorn.run(app, port=int(port), log_level="error")


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--naive"]:
        naive(*islice(sys.argv, 2, 4))
    else:
        main()
