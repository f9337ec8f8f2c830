"""The bodies of this package's own routes, with an example of each.

In: JSON.  Out: pydantic models, which OpenAPI shows.

Conversations are read by the scoring core and nowhere else, so that a bad one is its own fault and not the request's: here a
message is whatever JSON it is.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from armorm.errors import RecipeError
from armorm.scoring.profile import Profile

LARGEST_PROFILE = 2**14
"""Letters of a profile that is sent."""
_MESSAGE = {
    "type": "object",
    "properties": {"role": {"enum": ["system", "user", "assistant", "tool"]}, "content": {"type": "string"}},
    "required": ["role", "content"],
}
_MESSAGES = {"type": "array", "items": _MESSAGE}
_TEXT = {"type": "string"}
Messages = Annotated[Any, WithJsonSchema(_MESSAGES)]
Conversations = Annotated[list[Any], WithJsonSchema({"type": "array", "items": _MESSAGES})]
Answers = Annotated[list[Any], WithJsonSchema({"type": "array", "items": _TEXT})]
AnswerOrMessages = Annotated[Any, WithJsonSchema({"anyOf": [_TEXT, _MESSAGES]})]
ProfileAsked = Annotated[
    str | dict[str, Any] | None, Field(description="A profile of the server's by name, or a whole one; see docs/steer.md.")
]
_ASKED: list[Any] = [{"role": "user", "content": "What is 12 · 12?"}]
_TALKS: list[Any] = [[*_ASKED, {"role": "assistant", "content": text}] for text in ("12 · 12 = 144.", "About 150.")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: Annotated[str | None, Field(description="Refused where it is not the model that is served.")] = None
    profile: ProfileAsked = None

    def asked_profile(self) -> Profile | str | None:
        """The profile, checked by itself. Raises RecipeError."""
        return read_profile(self.profile)


class RewardsBody(_Body):
    """Conversations to score, each ending with the assistant's answer; or one prompt and its answers."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"conversations": _TALKS},
                {"messages": _ASKED, "answers": ["12 · 12 = 144.", "About 150."], "details": True},
                {"conversations": _TALKS[:1], "profile": {"name": "plain"}},
            ]
        }
    )

    conversations: Conversations | None = None
    messages: Messages | None = None
    answers: Answers | None = None
    details: Annotated[bool, Field(description="Rewards, gate, contributions and standard deviation too.")] = False

    @model_validator(mode="after")
    def _one_form(self) -> RewardsBody:
        prompted = self.messages is not None and self.answers is not None
        half = (self.messages is None) != (self.answers is None)
        if half or prompted == (self.conversations is not None):
            raise ValueError("give either `conversations`, or `messages` (the prompt) and `answers`")
        return self

    @property
    def count(self) -> int:
        """How many conversations they are; `asked` makes one of each answer."""
        return len(self.conversations or self.answers or ())

    def asked(self) -> list[Any]:
        """The conversations."""
        if self.conversations is not None:
            return self.conversations
        return [answered(self.messages, answer) for answer in self.answers or ()]


class CompareBody(_Body):
    """Two answers to one prompt (`messages`), or two whole conversations."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"messages": _ASKED, "a": "12 · 12 = 144.", "b": "About 150."},
                {"a": _TALKS[0], "b": _TALKS[1]},
            ]
        }
    )

    a: AnswerOrMessages
    b: AnswerOrMessages
    messages: Messages | None = None

    def asked(self) -> list[Any]:
        """The two conversations."""
        sides = [self.a, self.b]
        return sides if self.messages is None else [answered(self.messages, side) for side in sides]


def read_profile(given: str | dict[str, Any] | None) -> Profile | str | None:
    """A profile that was sent, checked by itself; a name stays one. Raises RecipeError."""
    if not isinstance(given, dict):
        return given
    require_small(json.dumps(given))
    return Profile.from_json(given)


def require_small(written: str) -> None:
    """Raises RecipeError for a profile that is larger than any."""
    if (size := len(written)) > LARGEST_PROFILE:
        raise RecipeError(f"profile: is larger than {LARGEST_PROFILE:,} letters, it has {size:,}: send a shorter one")


def answered(messages: Any, answer: Any) -> Any:
    """A prompt's messages, or a mapping that holds them with their tools, with an answer behind them."""
    turn = {"role": "assistant", "content": answer}
    if isinstance(messages, dict) and isinstance(messages.get("messages"), list):
        return {**messages, "messages": [*messages["messages"], turn]}
    return [*messages, turn] if isinstance(messages, list) else messages
