"""What OpenAPI says of replies: the forms of scores and errors, and which statuses a route may answer with.

In: statuses, the form of a protocol's errors.  Out: `responses` for routes; models that only describe.

What is refused at the door, before any route sees it, has this package's own form whichever protocol's route was meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, Field

AT_THE_DOOR = (401, 408, 413, 429, 500, 503)
KEYLESS = (408, 413, 429, 500)
"""Of routes that need no key and are answered to the end."""
FOR_SCORES = (400, 404, 413, 415, 422, 429, 500, 503, 504)
"""Of this package's own routes that score."""
SAID = {
    400: "A profile or a conversation that can't be used, or no JSON",
    401: "No API key, or a wrong one",
    404: "Another model than the one that is served",
    408: "The body was not there in time",
    413: "Too many bytes, answers or tokens",
    415: "A body that is compressed, or encoded otherwise",
    422: "A body of another form, or that can't be scored",
    424: "The model failed, or was not there in time",
    429: "Too much is waiting: `Retry-After` says for how long",
    500: "A fault of the server's own, or of its machine",
    503: "The server is shutting down",
    504: "The scores were not there in time",
}


class ErrorFacts(BaseModel):
    """What was seen and what to do; `request_id` stands in the server's log too."""

    type: str = Field(examples=["invalid-request"])
    message: str = Field(examples=["what was seen, what to do"])
    request_id: str = Field(examples=["0af1"])


class Error(BaseModel):
    """An error of a whole request."""

    error: ErrorFacts


class RowFault(BaseModel):
    """What is wrong with one conversation."""

    type: str
    message: str


class RowError(BaseModel):
    """A conversation that has no score."""

    index: int | None = None
    error: RowFault


class RowScore(BaseModel):
    """A conversation's score; with `details` what it is made of."""

    index: int | None = None
    score: float
    tokens: int | None
    truncated: bool
    notes: list[str] = []
    rewards: dict[str, float] = {}
    raw_rewards: dict[str, float] = {}
    gate: dict[str, float] = {}
    terms: dict[str, float] = {}
    contributions: dict[str, float] = {}
    std: float | None = None


class RewardsReply(BaseModel):
    """A result for each conversation, in order."""

    model: str
    objectives: list[str]
    results: list[RowScore | RowError]


class CompareReply(BaseModel):
    """Two answers compared."""

    model: str
    objectives: list[str]
    scores: dict[str, float]
    margin: float
    contributions: dict[str, float]
    probability: float | None
    note: str = ""
    sentence: str
    truncated: dict[str, bool]


class ModelFacts(BaseModel):
    """The model that is served."""

    id: str
    object: str
    owned_by: str
    objectives: list[str]
    profiles: list[str]
    max_tokens: int


class ModelsReply(BaseModel):
    """A list of one model."""

    object: str
    data: list[ModelFacts]


class ChangeFacts(BaseModel):
    """A change of the audit: its name, what it is called, what is expected of it, and what it does."""

    name: str
    label: str
    expected: str
    what: str


class Changed(ChangeFacts):
    """The same with the answer after it, and that answer's score."""

    answer: str
    result: RowScore | RowError


class AuditReply(BaseModel):
    """An answer's score, that of every change that applies to it, and the changes that don't."""

    model: str
    objectives: list[str]
    original: RowScore
    changes: list[Changed]
    inapplicable: list[ChangeFacts]


class ObjectiveFacts(BaseModel):
    """An objective with its scale."""

    name: str
    min: float
    max: float
    direction: str


class BasisReply(BaseModel):
    """What anyone needs to weigh rewards anew."""

    model: str
    objectives: list[ObjectiveFacts]
    computed: list[str]
    transform: list[list[float]]
    nuisances: list[str]
    profiles: dict[str, dict[str, Any]]
    profile: dict[str, Any] | None


class ProfileReply(BaseModel):
    """A profile as keys and values, and as the text of a YAML file."""

    profile: dict[str, Any]
    yaml: str


class State(BaseModel):
    """Whether the process answers, or takes requests."""

    status: str


def refusals(statuses: Iterable[int] = (), *, told: Any = Error, door: Iterable[int] = AT_THE_DOOR) -> dict[int | str, Any]:
    """The errors of a route that refuses with these statuses in the form `told`, and of the door in front of it."""
    own, before = set(statuses), set(door)
    found: dict[int | str, Any] = {}
    for status in sorted(own | before):
        form = Error if status not in own else told | Error if status in before and told is not Error else told
        found[status] = {"description": SAID[status], "model": form}
    return found


def answers(reply: Any, example: Any = None, *, headers: Any = None) -> dict[int | str, Any]:
    """A route's reply when all is well; `headers` as OpenAPI describes them."""
    shown = {} if example is None else {"content": {"application/json": {"example": example}}}
    return {200: {"description": "OK", "model": reply, **shown, **({} if headers is None else {"headers": headers})}}
