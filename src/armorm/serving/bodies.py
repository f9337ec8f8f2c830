"""The bodies of this package's own routes, with an example of each.

In: JSON.  Out: pydantic models, which OpenAPI shows.

Conversations are read by the scoring core and nowhere else, so that a bad one is its own fault and not the request's: here a
message is whatever JSON it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from armorm.conversation import kind_of
from armorm.errors import ConversationError, RecipeError
from armorm.scoring.profile import Profile
from armorm.serving.service import Outcome

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

    def told(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes, where an answer that is no text hears so."""
        return list(outcomes) if self.answers is None else told_of(self.answers, outcomes)


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

    def told(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes, where an answer that is no text hears so."""
        return list(outcomes) if self.messages is None else told_of((self.a, self.b), outcomes)


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


def told_of(answers: Sequence[Any], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """What came of answers to a prompt: one that failed and is no text hears that answers are texts."""
    return [
        _no_text(answer) if isinstance(outcome, ConversationError) and not _may_be_read(answer) else outcome
        for answer, outcome in zip(answers, outcomes, strict=True)
    ]


def _may_be_read(answer: Any) -> bool:
    # A text, or its parts, which are no messages.
    parts = answer if isinstance(answer, list) else [answer]
    return isinstance(answer, str | list | dict) and not any(map(_is_turn, parts))


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and ("role" in value or "content" in value)


def _no_text(answer: Any) -> ConversationError:
    seen = "a message" if _is_turn(answer) else kind_of(answer)
    return ConversationError(f"not-text: the answer is {seen}: answers are texts: send what the assistant said alone", "not-text")
