"""Rows of a server's `POST /v1/rewards`: asked in pieces, with time-outs, again where that may help.

In: a URL, conversations.  Out: `RewardServer`, a `Source`.  Cost: one request for `chunk` conversations; nothing but the standard
library is loaded.

A request is sent again after 408, 429, 5xx, time-outs and connections that break: after what a Retry-After header asks (up to two
minutes), else after 0.5 s, 1 s, 2 s, … 30 s, less up to a quarter at random. What the server calls too large is sent in halves.
No redirect is followed, since the key would go along.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from armorm.conversation import plain_value
from armorm.errors import ArmormError, ConversationError, UserError
from armorm.rl.rewarder import Row, finite
from armorm.rl.settings import Part, Settings
from armorm.user_json import DEEPEST, read_json

ROUTE = "/v1/rewards"
MODEL = "X-Armorm-Model"
"""The header with a digest of the server's model."""
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
TOO_LARGE = 413
LONGEST_WAIT = 120.0
LONGEST_PAUSE = 30.0
PROBE = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello! How can I help?"}]
"""What is scored to learn the names of a server's numbers."""
USUAL_BYTES = 4 * 2**20
"""Bytes that a server takes unless it was told otherwise. One that is sent far more may close the connection and say nothing."""
PARTS: tuple[Part, ...] = ("rewards", "debiased", "contributions")


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class RewardServer:
    """A server of this package's at a URL (with or without /v1 or the whole route behind it)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = _checked(settings.model.rstrip("/").removesuffix(ROUTE).removesuffix("/v1") + ROUTE)
        self._headers = {"content-type": "application/json", "accept": "application/json", **self._key()}
        profile = settings.profile_facts()
        self._asked: dict[str, Any] = {"details": True} | ({} if profile is None else {"profile": profile})
        self._opener = build_opener(_Stay)
        self._names: Mapping[Part, tuple[str, ...]] = {}
        self._model = ""

    def names(self, part: Part) -> tuple[str, ...]:
        if not self._names:
            (row,) = self.score([PROBE])
            if isinstance(row, str):
                raise ArmormError(f"{self.url} can't score a greeting ({row}): look at the server's log")
            self._learn(row)
        if part not in self._names:
            raise UserError(f"{self.url} gives no {part!r}: choose another part, or give a model folder in place of the server")
        return self._names[part]

    def score(self, conversations: Sequence[Any]) -> list[Row | str]:
        """Raises UserError where the server refuses what is asked of it, ArmormError where it can't be reached."""
        written = [_written(conversation) for conversation in conversations]
        sent = [i for i, (_, fault) in enumerate(written) if fault is None]
        found: list[Row | str] = [fault or "" for _, fault in written]
        for start in range(0, len(sent), self.settings.chunk):
            at = sent[start : start + self.settings.chunk]
            for i, row in zip(at, self._rows([written[i][0] for i in at]), strict=True):
                found[i] = row
                if isinstance(row, Row) and row.model != self._model:
                    self._learn(row)
        return found

    def _learn(self, row: Row) -> None:
        # The names of the model that answers now.
        self._names, self._model = {known: tuple(values) for known, values in row.parts.items()}, row.model

    def _rows(self, texts: Sequence[str]) -> list[Row | str]:
        head = json.dumps(self._asked)[:-1]
        body = f'{head}, "conversations": [{", ".join(texts)}]}}'.encode()
        fits = len(body) <= USUAL_BYTES or len(texts) == 1
        if fits and (reply := self._post(body)) is not None:
            return self._read(*reply, len(texts))
        if len(texts) == 1:
            return ["too-large: the server takes no conversation of this size"]
        half = len(texts) // 2
        return [*self._rows(texts[:half]), *self._rows(texts[half:])]

    def _post(self, body: bytes) -> tuple[bytes, str] | None:
        # The reply's body, and what it says of its model; None where the request was too large.
        for tries in range(self.settings.retries + 1):
            asked = None
            try:
                request = Request(self.url, body, self._headers)
                with self._opener.open(request, timeout=self.settings.timeout) as reply:
                    return reply.read(), str(reply.headers.get(MODEL, ""))
            except HTTPError as error:
                with error:
                    said = f"{error.code}: {_message(error)}"
                if error.code == TOO_LARGE:
                    return None
                if error.code not in AGAIN:
                    raise self._refused(error.code, said) from error
                asked = _retry_after(error.headers.get("retry-after"))
            except (URLError, HTTPException, OSError) as error:
                reason = getattr(error, "reason", error)
                said = f"{type(reason).__name__}: {reason}" if str(reason) else type(reason).__name__
            if tries < self.settings.retries:
                time.sleep(_pause(tries) if asked is None else asked)
        raise ArmormError(
            f"{self.url} gave no rewards in {self.settings.retries + 1} tries; the last said {said}. Look whether the server "
            "runs and is not overloaded; timeout and retries can be raised"
        )

    def _read(self, reply: bytes, model: str, n: int) -> list[Row | str]:
        try:
            results = json.loads(reply)["results"]
            rows = {int(one["index"]): _row(one, model) for one in results}
            return [rows[i] for i in range(n)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ArmormError(
                f"{self.url} sent what are no rewards ({type(error).__name__}: {str(error)[:100]}): is this the URL of "
                "`armorm serve`?"
            ) from error

    def _refused(self, code: int, said: str) -> UserError:
        where, key = self.url, self.settings.key_env
        if code in (401, 403):
            unset = "" if os.environ.get(key) else ", which is not set"
            return UserError(f"{where} refuses the key ({said}). It is read from {key}{unset}")
        if code in (301, 302, 303, 307, 308, 404, 405):
            return UserError(f"{where} has no rewards ({said}). Give the URL of `armorm serve`, such as http://localhost:8000")
        return UserError(f"{where} refuses what is asked ({said})")

    def _key(self) -> dict[str, str]:
        key = os.environ.get(self.settings.key_env, "").strip()
        if not (key.isascii() and (key.isprintable())):
            raise UserError(f"{self.settings.key_env} holds letters that no header may hold: put the server's key there")
        return {"authorization": f"Bearer {key}"} if key else {}


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:  # a port beyond 65535, say
        sound = False
    if not sound:
        raise UserError(f"{url!r} is no URL: give that of `armorm serve`, such as http://localhost:8000")
    return url


def _written(conversation: Any) -> tuple[str, str | None]:
    # A conversation as JSON; or what is wrong with it. It is read back as the server reads it, which refuses a whole request.
    try:
        text = json.dumps(plain_value(conversation), allow_nan=False)
        read_json(text, deepest=2 * DEEPEST - 2)
        return text, None
    except ConversationError as error:
        return "", str(error)
    except (TypeError, ValueError, RecursionError) as error:
        return "", f"not-messages: JSON can't hold it ({str(error)[:100]})"


def _row(result: Mapping[str, Any], model: str) -> Row | str:
    if (error := result.get("error")) is not None:
        return _fault(error)
    parts: dict[Part, Mapping[str, float]] = {
        part: {name: float(value) for name, value in result[part].items()} for part in PARTS if result.get(part) is not None
    }
    return finite(Row(float(result["score"]), parts, model))


def _fault(error: Any) -> str:
    # What is wrong with one conversation, its name in front once.
    if not isinstance(error, Mapping):
        return str(error)
    kind, said = str(error["type"]), str(error["message"])
    return said if said.startswith(f"{kind}:") else f"{kind}: {said}"


def _message(error: HTTPError) -> str:
    # What the server says, in a line.
    try:
        facts = json.loads(error.read(10_000))
        said = facts["error"]["message"] if isinstance(facts.get("error"), Mapping) else facts.get("detail", facts)
    except (ValueError, AttributeError, KeyError, OSError, HTTPException):
        said = error.reason
    return " ".join(str(said).split())[:300]


def _retry_after(given: str | None) -> float | None:
    # Seconds, or a date.
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        try:
            when = parsedate_to_datetime(given)
        except ValueError:
            return None
        seconds = ((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else None


def _pause(tries: int) -> float:
    return min(0.5 * 2.0**tries, LONGEST_PAUSE) * random.uniform(0.75, 1)
