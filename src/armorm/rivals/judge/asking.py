"""Prompts to a model, answered once: replies are kept on disk as they arrive, and asked for never again.

In: texts to ask, a `Completer`, the file of its replies.  Out: the replies' texts.  Cost: the model's, for what is new.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from armorm.kept import Kept
from armorm.rivals.judge.completing import Completer, Completion, Prompt, Replies, Usage

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Asker:
    """A model, what it has answered so far, and what that took. `progress` is told (prompts done, prompts in all)."""

    completer: Completer
    kept: Kept
    usage: Usage
    progress: OnProgress = lambda _done, _total: None

    def ask(self, texts: Sequence[str | None], read: Callable[[str], float]) -> list[float]:
        """What `read` makes of each reply; NaN without a reply, and for a text that is None.

        The same text is asked once. A prompt that the model gave up isn't kept: the next call asks it again.
        """
        names = {text: name_of(prompt_of(text)) for text in texts if text is not None}
        new = {name: prompt_of(text) for text, name in names.items() if name not in self.kept.values}
        for reply in (_reply(self.kept.values[name]) for name in names.values() if name not in new):
            self.usage.from_cache += 1
            self.usage.cut += reply.cut
            self.usage.cached_tokens.add(reply)
        self._ask_new(new, len(names))
        values = {text: read(self.kept.values[name]["text"]) for text, name in names.items() if name in self.kept.values}
        self.usage.unparsable += sum(map(math.isnan, values.values()))
        return [math.nan if text is None else values.get(text, math.nan) for text in texts]

    def _ask_new(self, new: dict[str, Prompt], total: int) -> None:
        names, done = list(new), total - len(new)
        self.progress(done, total)
        if not new:
            return

        def arrived(replies: Replies) -> None:
            nonlocal done
            found = {names[i]: reply for i, reply in replies.items() if reply is not None}
            self.usage.requests += len(replies)
            self.usage.failed += len(replies) - len(found)
            if found:
                self.kept.add({name: _record(reply) for name, reply in found.items()})
            for reply in found.values():
                self.usage.cut += reply.cut
                self.usage.tokens.add(reply)
            done += len(replies)
            self.progress(done, total)

        start, before = time.monotonic(), Counter(self.completer.failures)
        try:
            self.completer.complete(list(new.values()), arrived=arrived)
        finally:
            self.usage.seconds += time.monotonic() - start
            self.usage.failures += self.completer.failures - before


def prompt_of(text: str) -> Prompt:
    """One user turn: not every chat template takes a system message."""
    return [{"role": "user", "content": text}]


def name_of(prompt: Prompt) -> str:
    """The name under which a prompt's reply is kept: a hash of its turns."""
    return blake2b(json.dumps(prompt, sort_keys=True).encode(), digest_size=16).hexdigest()


def _record(reply: Completion) -> dict[str, Any]:
    record = {"text": reply.text, "in": reply.tokens_in, "out": reply.tokens_out}
    return record | ({"cut": True} if reply.cut else {})


def _reply(record: dict[str, Any]) -> Completion:
    return Completion(record["text"], record["in"], record["out"], record.get("cut", False))
