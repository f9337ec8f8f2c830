"""Hostile model folders given to `armorm serve`: it says why not and ends, or it serves, and never anything between.

In: a model's folder with one file changed, as `models` changes it.  Out: `Outcome`s.  Cost: a server's start each, half a second.
"""

from __future__ import annotations

import json
import random
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tests.torture.attack import Attack
from tests.torture.children import Child, Ended
from tests.torture.hostile import shown_as
from tests.torture.models import CONVERSATIONS, Configs, Folders, Headers, Templates
from tests.torture.outcomes import Outcome

BEGINS, ENDS = 60.0, 120.0
"""Seconds from its start until a server says that it serves, and until it has ended."""
LOOK = 0.05


class Serve(Attack):
    """A server on such a folder. One that serves is ready, answers with finite numbers and ends with 0 when it is told to."""

    name, weight = "serve", 1.0
    batch: ClassVar[int] = 4
    changes: ClassVar[tuple[type[Folders], ...]] = (Configs, Headers, Templates)

    def attack(self, draw: random.Random) -> Iterator[Outcome]:
        for _ in range(self.batch):
            folders = draw.choice(self.changes)(self.world)
            what, given = next(one for one in folders.inputs(draw) if one[1][0] != "decoder")
            with self.world.folder() as place:
                yield self._served(place, folders.write(place, given), what, {"input": shown_as(given[1:])})

    def _served(self, place: Path, folder: Path, what: str, how: dict[str, Any]) -> Outcome:
        child = Child(("serve", str(folder), "--port", "0"), place, name="server")
        url = _url(child)
        wrong = "" if url is None else _wrong(url)
        if url is not None:
            child.send(signal.SIGTERM)
        ended = child.wait(BEGINS if url is None else ENDS)
        verdict, told = _verdict(ended, served=url is not None, wrong=wrong)
        return Outcome(verdict, what, told, {**how, "said": ended.err[-1500:]}, ended.rss)


def _url(child: Child) -> str | None:
    """Where a server is reached, once it says so; None where it has ended before, or says nothing for too long."""
    while True:
        runs = child.runs(LOOK)
        said = child.err.read_bytes().decode(errors="replace") if child.err.exists() else ""
        for line in said.splitlines(keepends=True):
            if '"event": "serving"' in line and line.endswith("\n"):
                return str(json.loads(line)["url"])
        if not runs or time.perf_counter() - child.start > BEGINS:
            return None


def _wrong(url: str) -> str:
    """What is wrong with a server that says it serves ("" for nothing): not ready, no answer, a number that is none."""
    body = json.dumps({"conversations": CONVERSATIONS, "details": True}).encode()
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=BEGINS) as reply:
            if reply.status != 200:
                return f"/readyz: {reply.status}"
        asked = urllib.request.Request(f"{url}/v1/rewards", body, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=BEGINS) as reply:
            results = json.loads(reply.read(), parse_constant=lambda word: f"a number that is {word}")["results"]
    except (OSError, ValueError, KeyError) as error:  # a status that is no 200 is an OSError
        return f"{type(error).__name__}: {error}"[:200]
    sound = [isinstance(one.get("score"), int | float) or bool(one.get("error", {}).get("message")) for one in results]
    return "" if len(sound) == len(CONVERSATIONS) and all(sound) else f"results that are none: {str(results)[:150]}"


def _verdict(ended: Ended, *, served: bool, wrong: str) -> tuple[str, str]:
    if ended.verdict in ("hang", "traceback"):
        return ended.verdict, ended.told
    if not served:
        if ended.verdict == "refused":
            return "refused", ended.error or "error"
        return "silent", f"it ended with {ended.code}, and neither served nor said why"
    if wrong:
        return "silent", f"it served and gave no answer: {wrong}"
    return ("survived", "") if ended.code == 0 else ("traceback", f"told to end, it ended with {ended.code}")
