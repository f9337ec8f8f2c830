"""Conversations, and where in their tokens the prompt ends and the answer ends.

In: messages (role, content) that end with the assistant's answer, and a tokenizer with a chat template.
Out: `Rendered`: three token segments (prompt, answer, closing), so every position is a sum of lengths.
Cost: one template rendering per distinct prompt, one tokenisation per text.

Positions never come from searching token ids: whatever text an answer holds, a literal chat header too, it stays in the
answer's segment. The segments are tokenised apart, as a policy sees them (its answer starts on a fresh token), and the
answer's text can't produce special tokens.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, TypedDict
from weakref import WeakKeyDictionary

from armorm.errors import BackboneError, ConversationError


class Message(TypedDict):
    """One turn."""

    role: str
    content: str


Conversation = Sequence[Message]
"""Messages in order: an optional system message, then user and assistant in turn, the assistant last."""


class Fault(str):
    """Why something is no conversation: a short stable name (counted in reports), with a remedy as `Fault.remedy`."""

    REMEDIES: Mapping[str, str] = {
        "not-messages": "give a list of {'role': …, 'content': …} with text contents",
        "empty-turn": "fill in or remove the turn without text",
        "unknown-role": "use the roles system, user and assistant",
        "not-alternating": "let user and assistant turns alternate, starting with user (a system message may come first)",
        "no-answer": "end the conversation with the assistant's answer",
        "not-utf8": "remove the unpaired surrogates or bytes that are no UTF-8",
    }

    @property
    def remedy(self) -> str:
        return self.REMEDIES.get(self, "")


def fault_in(messages: Any) -> Fault | None:
    """What makes `messages` no scorable conversation, or None."""
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
        return Fault("not-messages")
    for m in messages:
        if not isinstance(m, Mapping) or not isinstance(m.get("content"), str) or not isinstance(m.get("role"), str):
            return Fault("not-messages")
        if m["role"] not in ("system", "user", "assistant"):
            return Fault("unknown-role")
        if not m["content"].strip():
            return Fault("empty-turn")
        if not is_utf8(m["content"]):
            return Fault("not-utf8")
    if messages[-1]["role"] != "assistant":
        return Fault("no-answer")
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    if any(m["role"] != ("user", "assistant")[i % 2] for i, m in enumerate(turns)):
        return Fault("not-alternating")
    return None


def is_utf8(text: str) -> bool:
    """Whether the text can be written as UTF-8 (JSON can smuggle in unpaired surrogates)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def prompt_group(messages: Iterable[Message]) -> str:
    """The group of a prompt: a hash of its first user turn, letter case, white space and punctuation aside.

    Rows that share it stand on the same side of every split.
    """
    first = next((m["content"] for m in messages if m["role"] == "user"), "")
    whole = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", first)).strip().casefold()
    normal = re.sub(r"[^\w]+", " ", whole).strip() or whole  # a prompt of nothing but symbols keeps them
    return "g" + hashlib.sha256(normal.encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as token ids in three segments.

    `prompt`: everything up to where the answer starts, with the template's header for it; `answer`: the answer's own text;
    `closing`: what the template puts behind it (`<|im_end|>\\n`, `<|eot_id|>`; may be empty).
    `dropped_turns` and `cut_tokens` say what truncation took away.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    closing: tuple[int, ...]
    dropped_turns: int = 0
    cut_tokens: int = 0

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt + self.answer + self.closing

    @property
    def truncated(self) -> bool:
        return bool(self.dropped_turns or self.cut_tokens)

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer) + len(self.closing)


class Renderer:
    """Turns conversations into token segments with one tokenizer's chat template.

    `max_tokens` bounds a whole conversation: the oldest turns (question and answer together; the system message stays) go
    first, then tokens from the left of the remaining prompt, and only an answer that is itself too long loses its own
    beginning; its end always stays. Raises BackboneError when there is no chat template.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise BackboneError(
                "the backbone's tokenizer has no chat template: name a Jinja file with one as `backbone.chat_template` in the "
                "recipe (the template of a chat model of the same family will do)"
            )
        if max_tokens < 16:
            raise BackboneError(f"max_tokens is {max_tokens}: a conversation needs at least 16")
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._frame = lru_cache(maxsize=4096)(self._frame_of)
        self._bos = bos_of(tokenizer)

    def render(self, messages: Conversation) -> Rendered:
        """The conversation as segments. Raises ConversationError when it is none (see `fault_in`)."""
        if fault := fault_in(messages):
            raise ConversationError(f"{fault}: {fault.remedy}")
        context = tuple((m["role"], m["content"]) for m in messages[:-1])
        return self._fit(context, self.plain(messages[-1]["content"]))

    def plain(self, text: str) -> tuple[int, ...]:
        """The tokens of a text by itself, without the white space around it; nothing in it becomes a special token."""
        return encode(self.tokenizer, text.strip(), special=False)

    def with_bos(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Behind what the tokenizer itself would put in front of a text, once."""
        return ids if ids[: len(self._bos)] == self._bos else self._bos + ids

    @property
    def header_ids(self) -> tuple[int, ...]:
        """The tokens that every rendered prompt ends with: how the template closes a question and opens an answer."""
        one, two = (self._frame((("user", s),))[0] for s in _SENTINELS)
        same = 0
        while same < min(len(one), len(two)) and one[-1 - same] == two[-1 - same]:
            same += 1
        return one[len(one) - same :]

    @property
    def closing_ids(self) -> tuple[int, ...]:
        """The tokens that the template puts behind an answer."""
        return self._frame((("user", _SENTINELS[0]),))[1]

    def _fit(self, context: tuple[tuple[str, str], ...], answer: tuple[int, ...]) -> Rendered:
        prompt, closing = self._frame(context)
        turns = 0
        while len(prompt) + len(answer) + len(closing) > self.max_tokens and (shorter := _without_oldest(context)):
            turns += len(context) - len(shorter)
            context = shorter
            prompt, closing = self._frame(context)
        over = len(prompt) + len(answer) + len(closing) - self.max_tokens
        if over <= 0:
            return Rendered(prompt, answer, closing, dropped_turns=turns)
        # Keep the BOS and at least the header that opens the answer: the gate reads the prompt's last token.
        bos = self._bos if prompt[: len(self._bos)] == self._bos else ()
        least = min(max(8, len(self.header_ids)), len(prompt) - len(bos))
        keep = max(len(prompt) - over - len(bos), least)
        prompt = bos + prompt[len(prompt) - keep :]
        room = self.max_tokens - len(prompt) - len(closing)
        if room < 1:
            raise BackboneError(
                f"max_tokens is {self.max_tokens}, the chat template's own tokens take {len(prompt) + len(closing)}: "
                f"use at least {2 * (len(prompt) + len(closing))}"
            )
        return Rendered(prompt, answer[-room:] if len(answer) > room else answer, closing, turns, over)

    def _frame_of(self, context: tuple[tuple[str, str], ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        # The template around an answer: whatever two renderings that differ only in the answer have in common.
        messages = [{"role": r, "content": c} for r, c in context]
        one, two = (self._text([*messages, {"role": "assistant", "content": s}]) for s in _SENTINELS)
        start, end = one.rfind(_SENTINELS[0]), two.rfind(_SENTINELS[1])
        before, after = one[:start], one[start + len(_SENTINELS[0]) :]
        if start < 0 or end < 0 or before != two[:end] or after != two[end + len(_SENTINELS[1]) :]:
            raise BackboneError("the chat template does not put the assistant's answer into its text: it can't be used here")
        return self.with_bos(encode(self.tokenizer, before)), encode(self.tokenizer, after)

    def _text(self, messages: list[dict[str, str]]) -> str:
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception as error:  # templates raise what they like (Jinja's TemplateError for a role they don't know)
            raise ConversationError(f"the chat template refuses this conversation: {error}") from error


_LOCKS: WeakKeyDictionary[Any, Lock] = WeakKeyDictionary()


def encode(tokenizer: Any, text: str, *, special: bool = True, added: bool = False) -> tuple[int, ...]:
    """A text's token ids. `special` reads special tokens in it as such; `added` puts in front what the tokenizer wants there.

    One thread at a time: a tokenizer keeps such settings in itself while it works, and two threads would mix theirs.
    """
    with _LOCKS.setdefault(tokenizer, Lock()):
        return tuple(tokenizer.encode(text, add_special_tokens=added, split_special_tokens=not special)) if text else ()


def bos_of(tokenizer: Any) -> tuple[int, ...]:
    """What the tokenizer itself would put in front of a text, (bos,) or nothing: added once, where a template did not."""
    bos = tokenizer.bos_token_id
    return (bos,) if bos is not None and encode(tokenizer, "a", added=True)[:1] == (bos,) else ()


_SENTINELS = ("Qx7ArmormAnswerOne", "Zk3ArmormAnswerTwo")


def _without_oldest(context: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...] | None:
    # One question and its answer less; None when only the last question (and the system message) is left.
    head = 1 if context and context[0][0] == "system" else 0
    return context[:head] + context[head + 2 :] if len(context) - head > 2 else None
