"""Best of n: any OpenAI-compatible endpoint writes, a reward model (a folder, or a server) chooses and says why.

    python examples/best_of_n.py runs/mine/model "What is 12 · 12?" --endpoint http://localhost:8000/v1 --generator NAME -n 8

The endpoint's key, if it needs one, stands in OPENAI_API_KEY, that of a server of rewards in ARMORM_API_KEY. Nothing but the
standard library is needed beside this package.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.request import Request, urlopen

from armorm.errors import ArmormError, UserError
from armorm.rl.conversations import joined
from armorm.rl.rewarder import Row, rewarder
from armorm.rl.settings import Settings


@dataclass(frozen=True)
class Choice:
    """One answer with what the reward model says of it; None where it can't be scored."""

    answer: str
    row: Row | None


def write_answers(endpoint: str, generator: str, messages: Sequence[Any], n: int, **sampling: Any) -> list[str]:
    """n answers of a chat-completions endpoint; asked again for as many as are missing, since some servers give one at a time."""
    key = os.environ.get("OPENAI_API_KEY", "none")
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    answers = list[str]()
    while len(answers) < n:
        body = {"model": generator, "messages": list(messages), "n": n - len(answers), **sampling}
        written = ask(endpoint, body, headers)
        if not written:
            raise SystemExit(f"{endpoint} gave no answer")
        answers += written
    return answers[:n]


def ask(endpoint: str, body: Any, headers: Mapping[str, str]) -> list[str]:
    """The answers of one request. Raises UserError where there is no such endpoint, or it sends something else."""
    try:
        request = Request(f"{endpoint.rstrip('/')}/chat/completions", json.dumps(body).encode(), dict(headers))
        with urlopen(request, timeout=600) as reply:
            return [choice["message"]["content"] or "" for choice in json.load(reply)["choices"]]
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{endpoint} wrote no answers ({said}): start it, or give its address with --endpoint") from error


def best_of(settings: Settings, messages: Sequence[Any], answers: Sequence[str]) -> list[Choice]:
    """The answers, the best first; those that can't be scored come last. Equal scores keep their order."""
    rows = rewarder(settings).rows([joined(messages, answer) for answer in answers])
    choices = [Choice(answer, row) for answer, row in zip(answers, rows, strict=True)]
    return sorted(choices, key=lambda c: (c.row is None, -c.row.score if c.row else 0.0))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder, a hub id, or the URL of a server of rewards")
    parser.add_argument("prompt")
    parser.add_argument("--endpoint", default="http://localhost:8000/v1")
    parser.add_argument("--generator", required=True, help="the generator's name, as the endpoint knows it")
    parser.add_argument("-n", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=1.0)
    given = parser.parse_args(words)
    try:
        tell(given)
    except ArmormError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def tell(given: argparse.Namespace) -> None:
    """Write, choose, print."""
    messages = [{"role": "user", "content": given.prompt}]
    answers = write_answers(given.endpoint, given.generator, messages, given.n, temperature=given.temperature)
    best, *others = best_of(Settings(given.model), messages, answers)
    print(best.answer)
    if best.row is None:
        raise SystemExit("none of the answers can be scored")
    parts = sorted(best.row.named("contributions").items(), key=lambda part: -abs(part[1]))
    print(f"\nscore {best.row.score:.3f}: {', '.join(f'{name} {value:+.3f}' for name, value in parts)}")
    print("others: " + ", ".join("–" if other.row is None else f"{other.row.score:.3f}" for other in others))


if __name__ == "__main__":
    main()
