"""Conversations → tokens, as the chat template gives them, and where in them the prompt ends and the answer ends.

In: a conversation, a tokenizer with a chat template.  Out: `Rendered`: three token segments (prompt, answer, closing), so every
position is a sum of lengths.
Cost: one template rendering per conversation and a few per distinct prompt, one tokenisation per text. Of a conversation
that does not fit, what stays is found from the newest turns backwards, in a few renderings of about what fits.

What is scored is the template's own rendering of the whole conversation. The prompt is what it has in common whatever the answer
is, up to the header that opens one; the closing is what always stands behind an answer; the answer is what is between them, white
space and think blocks as the template has them. Positions never come from searching token ids, and the segments are tokenised
apart, as a policy sees them (its answer starts on a fresh token).

What a person wrote stays text: a special token's literal in it is no token, wherever the tokenizer can do that. The clock that a
template may ask is frozen, so that a score does not change overnight.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from functools import cached_property, lru_cache, partial
from sys import getsizeof
from threading import Lock
from typing import Any, Literal
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict

from armorm.bounded import Remembered
from armorm.conversation import (
    REASONING,
    Answer,
    Fault,
    Message,
    Parsed,
    Span,
    parse_conversation,
    split_answer,
    texts_in,
    turns_of,
)
from armorm.errors import BackboneError, ConversationError
from armorm.rounds import Rounds, most

VERSION = 2
"""Changes whenever the same conversation may give other tokens; it is part of every key."""
LONGEST = 2**22
"""The characters of the longest question with its answer that is rendered (4 Mi), and of the turns that are kept at most."""
WHOLE = 2**20
"""A conversation of so many characters is shown to the template whole, also where only its newest turns fit."""
REMEMBERED = 2**26
"""The bytes of prompts, and of their tokens, that a renderer keeps (64 MiB each)."""
SystemTurn = Literal["own", "merged"]
Ids = tuple[int, ...]


class Rendering(BaseModel):
    """How conversations are rendered: what decides the tokens beside the template.

    `answer`: the last turn, or the whole trajectory behind the user's last turn. `system`: a turn of its own, or merged into the
    user's first turn (for templates that know no system role). `today`: the date that a template is told in place of the clock's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer: Span = "last-turn"
    system: SystemTurn = "own"
    today: date = date(2024, 7, 26)

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON."""
        return self.model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as token ids in three segments.

    `prompt`: everything up to where the answer starts, with the template's header for it; `answer`: the answer's own text;
    `closing`: what the template puts behind it (`<|im_end|>\\n`, `<|eot_id|>`; may be empty).
    `dropped_turns` and `cut_tokens` say what truncation took away, `notes` what the template left out or could not keep apart.
    `text` is the answer's before it was cut, as the template has it ("" where tokens are all that there is).
    """

    prompt: Ids
    answer: Ids
    closing: Ids
    dropped_turns: int = 0
    cut_tokens: int = 0
    notes: tuple[str, ...] = ()
    text: str = field(default="", compare=False, repr=False)

    @property
    def ids(self) -> Ids:
        return self.prompt + self.answer + self.closing

    @property
    def truncated(self) -> bool:
        return bool(self.dropped_turns or self.cut_tokens)

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer) + len(self.closing)


@dataclass(frozen=True, slots=True)
class Frame:
    """What the template puts around every answer to one context: texts, in which the literals of special tokens are broken."""

    prompt: str
    closing: str
    notes: tuple[str, ...]


class Renderer:
    """Turns conversations into token segments with one tokenizer's chat template.

    `max_tokens` bounds a whole conversation: the oldest turns (a question and all that answers it; the system message stays) go
    first, then tokens from the left of the remaining prompt, and only an answer that is itself too long loses its own
    beginning; its end always stays. Of a conversation of more than `WHOLE` characters the template sees only what stays. Raises
    BackboneError when there is no chat template.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int, rendering: Rendering = Rendering()) -> None:  # noqa: B008 - frozen
        if not getattr(tokenizer, "chat_template", None):
            raise BackboneError(
                "the backbone's tokenizer has no chat template: name a Jinja file with one as `backbone.chat_template` in the "
                "recipe (the template of a chat model of the same family will do)"
            )
        if max_tokens < 16:
            raise BackboneError(f"max_tokens is {max_tokens}: a conversation needs at least 16")
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.rendering = rendering
        self._frame = Remembered(self._frame_of, _frame_bytes, REMEMBERED)
        self._prompt_ids = Remembered(self._prompt_ids_of, ids_bytes, REMEMBERED)
        self._shows = lru_cache(maxsize=None)(self._shows_in)
        self._bos = bos_of(tokenizer)
        specials = "|".join(map(re.escape, _specials_of(tokenizer)))
        self._literals = re.compile(f"({specials})" if specials else "((?!))")

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy begins with nothing remembered.
        return partial(type(self), max_tokens=self.max_tokens, rendering=self.rendering), (self.tokenizer,)

    # -- a conversation's tokens ---------------------------------------------------------------------------------------------

    def render(self, messages: Any) -> Rendered:
        """The conversation as segments; one that is `Rendered` already is bounded alone.

        Raises ConversationError when it is none, or when the template refuses it.
        """
        if isinstance(messages, Rendered):
            return messages if len(messages) <= self.max_tokens else self._bounded(messages)
        parsed, context, answer = self._split(messages)
        fitted = self._fitted(context, answer)
        notes = tuple(dict.fromkeys((*parsed.notes, *fitted.notes)))
        return self._cut(fitted, len(context) - len(fitted.context), notes)

    def framed(self, prompt: str, answer: str) -> Rendered:
        """A prompt as the template writes it, with the header that opens an answer, and an answer's text, as segments.

        Special tokens in the prompt's text are such, as they are for the policy that was given it; in the answer they are text.
        """
        return Rendered(self._prompt_ids(prompt), encode(self.tokenizer, answer, special=False), self.closing_ids, text=answer)

    def bounded(self, max_tokens: int) -> Renderer:
        """The same for conversations of at most so many tokens."""
        return Renderer(self.tokenizer, max_tokens=max_tokens, rendering=self.rendering)

    def check(self, messages: Any) -> tuple[str, ...]:
        """What `render` would note, without tokenising. Raises what `render` raises."""
        parsed, context, answer = self._split(messages)
        rounds = self._rounds(context, answer)
        _, frame, notes = self._compose(rounds.newest(rounds.within(WHOLE)), answer)
        return tuple(dict.fromkeys((*parsed.notes, *frame.notes, *notes)))

    # -- what fits -----------------------------------------------------------------------------------------------------------

    def _fitted(self, context: tuple[Message, ...], answer: Answer) -> _Fitted:
        """As many of the newest rounds as fit, the last one at least."""
        rounds = self._rounds(context, answer)
        tried: dict[int, _Fitted] = {}

        def fits(n: int) -> bool:
            if rounds.size(n) > LONGEST:
                return False
            tried[n] = self._tokens(rounds.newest(n), answer)
            return len(tried[n]) <= self.max_tokens

        every, guess, candidates = rounds.count, 1, rounds.count
        if rounds.size(every) <= WHOLE:
            if fits(every) or every == 1:
                return tried[every]
            guess, candidates = rounds.within(rounds.size(every) * self.max_tokens / len(tried[every])), every - 1
        return tried[most(candidates, fits, guess=guess)]

    def _rounds(self, context: tuple[Message, ...], answer: Answer) -> Rounds:
        # Refuses what no template should see, and turns that the template would not show, whether or not they will be dropped.
        rounds = Rounds(context, answer)
        if rounds.size(1) > LONGEST:
            raise Fault("too-long", f"the last question and its answer have {rounds.size(1):,} characters").error()
        self._unread([*context, *turns_of(answer)], None)
        return rounds

    def _tokens(self, context: tuple[Message, ...], answer: Answer) -> _Fitted:
        body, frame, notes = self._compose(context, answer)
        return _Fitted(context, *self._ids(frame, body, answer), (*frame.notes, *notes), _unmarked(body))

    def plain(self, text: str) -> Ids:
        """The tokens of a text by itself, without the white space around it; nothing in it becomes a special token.

        Raises ConversationError for more than `LONGEST` characters.
        """
        if len(text) > LONGEST:
            raise Fault("too-long", f"a text has {len(text):,} characters").error()
        return encode(self.tokenizer, text.strip(), special=False)

    def with_bos(self, ids: Ids) -> Ids:
        """Behind what the tokenizer itself would put in front of a text, once."""
        return ids if ids[: len(self._bos)] == self._bos else self._bos + ids

    @cached_property
    def header_ids(self) -> Ids:
        """The tokens that every rendered prompt ends with: how the template closes a question and opens an answer."""
        one, two = (self._prompt_ids(self._frame(_question(s)).prompt) for s in _SENTINELS)
        same = 0
        while same < min(len(one), len(two)) and one[-1 - same] == two[-1 - same]:
            same += 1
        return one[len(one) - same :]

    @cached_property
    def closing_ids(self) -> Ids:
        """The tokens that the template puts behind an answer."""
        return self._encode(self._frame(_question(_SENTINELS[0])).closing)

    # -- texts ---------------------------------------------------------------------------------------------------------------

    def _split(self, messages: Any) -> tuple[Parsed, tuple[Message, ...], Answer]:
        parsed = parse_conversation(messages)
        turns = _merge_system(parsed.messages) if self.rendering.system == "merged" else parsed.messages
        return parsed, *split_answer(turns, self.rendering.answer)

    def _compose(self, context: tuple[Message, ...], answer: Answer) -> tuple[str, Frame, list[str]]:
        """The answer as the template renders it behind this context, what stands around it, and what is to be noted."""
        turns = turns_of(answer)
        notes = self._unread(turns, context[0].get("tools") if context else None)
        frame = self._frame(_hashable(context))
        marked, broken = self._text([*context, *turns])
        if not marked.startswith(frame.prompt):
            raise Fault("answer-unread", "it changes how its prompt is rendered").error()
        body = marked[len(frame.prompt) :]
        if frame.closing and not body.endswith(frame.closing):  # a call that waits for its result is closed otherwise
            frame = replace(frame, closing="")
        body = body[: len(body) - len(frame.closing)]
        if not body.strip():
            raise Fault("answer-unread").error()
        if not broken:
            notes.append("special-token-in-text")
        shown = _Shown(_unmarked(body))
        self._check_calls(turns, shown)
        if not all(self._holds(m, shown) for m in turns):
            notes.append("text-left-out")
        return body, frame, notes

    def _frame_of(self, turns: tuple[tuple[str, str, str], ...]) -> Frame:
        # The template around an answer: what renderings that differ in the answer alone have in common, and the header.
        context = [_message(*turn) for turn in turns]
        texts, broken = list[str](), True
        for sentinel in _SENTINELS:
            text, kept = self._text([*context, Message(role="assistant", content=sentinel)])
            texts.append(text)
            broken = broken and kept
        places = [text.rfind(sentinel) for text, sentinel in zip(texts, _SENTINELS, strict=True)]
        befores = [text[:place] for text, place in zip(texts, places, strict=True)]
        afters = [text[place + len(s) :] for text, place, s in zip(texts, places, _SENTINELS, strict=True)]
        if min(places) < 0 or befores[0] != befores[1] or afters[0] != afters[1]:
            raise BackboneError("the chat template does not put the assistant's answer into its text: it can't be used here")
        prompt = _common_start([befores[0], *self._openings(context)])
        notes = self._unread(context, None)
        notes += [] if broken else ["special-token-in-text"]
        shown = _Shown(_unmarked(prompt))
        notes += ["text-left-out"] if not all(self._holds(m, shown) for m in context if m["role"] != "system") else []
        self._check_calls(context, _Shown(shown.text))
        return Frame(prompt, afters[0], tuple(notes))

    def _openings(self, context: list[Message]) -> list[str]:
        # How else an answer may open: behind the header that a policy is given, and with reasoning in front.
        found = []
        try:
            header = self._text(context, opened=True)[0]
            found += [header] if header != self._text(context)[0] else []  # some templates know no header
        except ConversationError:
            pass
        if self._shows(REASONING[0]):
            thought = Message(role="assistant", content=_SENTINELS[1], reasoning_content=_SENTINELS[0])
            found.append(self._text([*context, thought])[0])
        return found

    def _text(self, messages: Sequence[Message], *, opened: bool = False) -> tuple[str, bool]:
        # The template's text, literals of special tokens in what people wrote broken by a mark (and whether that was possible).
        found = [_readable(m, parts=self._wants_parts) for m in messages]
        plain = self._apply(found, opened=opened)
        marked = _mark(found, self._literals)
        if marked == found:
            return plain, True
        text = self._apply(marked, opened=opened) if self._can_break else ""
        return (text, True) if _unmarked(text) == plain else (plain, False)

    def _apply(self, messages: list[dict[str, Any]], *, opened: bool = False, **more: Any) -> str:
        try:
            return apply_template(self.tokenizer, messages, today=self.rendering.today, opened=opened, **more)
        except Exception as error:  # templates raise what they like (Jinja's TemplateError for a role they don't know)
            if any(isinstance(c["function"].get("arguments"), dict) for m in messages for c in m.get("tool_calls", ())):
                return self._apply([_with_text_arguments(m) for m in messages], opened=opened, **more)
            raise Fault("template-refuses", f"the chat template refuses this conversation: {str(error)[:200]}").error() from error

    @cached_property
    def _wants_parts(self) -> bool:
        # Templates of models that see pictures may know contents as lists of parts alone.
        turns = [Message(role="user", content=_SENTINELS[0]), Message(role="assistant", content=_SENTINELS[1])]
        plain, parted = (self._tried([_readable(m, parts=parts) for m in turns]) for parts in (False, True))
        return all(s in parted for s in _SENTINELS) and not all(s in plain for s in _SENTINELS) and "'type'" not in parted

    def _tried(self, messages: list[dict[str, Any]]) -> str:
        try:
            return self._apply(messages)
        except ConversationError:
            return ""

    # -- what a template shows -------------------------------------------------------------------------------------------------

    def _unread(self, turns: Sequence[Message], tools: Any) -> list[str]:
        """What of these turns the template never shows, as notes. Raises ConversationError where a score would mean nothing."""
        if any(m.get("tool_calls") for m in turns) and not self._shows("tool_calls"):
            raise Fault("tool-calls-unread").error()
        if any(m["role"] == "tool" for m in turns) and not self._shows("tool"):
            raise Fault("tool-turns-unread").error()
        notes = [key for key in REASONING if any(m.get(key) for m in turns) and not self._shows(key)]
        notes += ["system"] if any(m["role"] == "system" for m in turns) and not self._shows("system") else []
        notes += ["tools"] if (tools or any(m.get("tools") for m in turns)) and not self._shows("tools") else []
        return [f"{note} not in the template" for note in notes]

    def _check_calls(self, turns: Sequence[Message], shown: _Shown) -> None:
        # A template may show calls, and yet not all of one turn.
        for call in (call["function"] for m in turns for call in m.get("tool_calls", ())):
            said = (text for text in texts_in([call.get("name"), call.get("arguments")]) if text.strip())
            if not all(text in shown or json.dumps(text, ensure_ascii=False)[1:-1] in shown for text in said):
                raise Fault("tool-calls-unread", "not all of them are shown").error()

    def _holds(self, message: Message, shown: _Shown) -> bool:
        # Whether a turn's text, and its reasoning if the template shows any, stands in a rendering; blocks may be written anew.
        text = message["content"].strip()
        if message["role"] == "tool" and json.dumps(text, ensure_ascii=False)[1:-1] in shown:
            return True
        said = [text, *(str(message.get(key) or "") for key in REASONING if self._shows(key))]
        return all(one in shown or all(piece.strip() in shown for piece in _BLOCKS.split(one)) for one in said)

    def _shows_in(self, what: str) -> bool:
        call = {"type": "function", "function": {"name": _SENTINELS[0], "arguments": {"a": _SENTINELS[1]}}}
        tool = {
            "type": "function",
            "function": {"name": _SENTINELS[0], "description": _SENTINELS[1], "parameters": _NO_PARAMETERS},
        }
        asked: dict[str, Any] = {"role": "user", "content": "a"}
        if what == "tools":
            asked["tools"] = [tool]
        answered: dict[str, Any] = {"role": "assistant", "content": "b"}
        if what == "tool_calls":
            answered |= {"content": "", "tool_calls": [call]}
        elif what in REASONING:
            answered[what] = "".join(_SENTINELS)
        turns = [asked, answered]
        if what == "system":
            turns = [{"role": "system", "content": "".join(_SENTINELS)}, *turns]
        if what == "tool":
            called = {"role": "assistant", "content": "", "tool_calls": [call | {"id": "abcdefghi"}]}
            result = {"role": "tool", "content": " ".join(_SENTINELS), "name": "f", "tool_call_id": "abcdefghi"}
            turns = [asked, called, result, answered]
        text = self._tried([_readable(m, parts=self._wants_parts) for m in turns])  # type: ignore[arg-type]
        return not text or all(sentinel in text for sentinel in _SENTINELS)  # one that refuses says so where it meets one

    # -- tokens ----------------------------------------------------------------------------------------------------------------

    def _ids(self, frame: Frame, body: str, answer: Answer) -> tuple[Ids, Ids, Ids]:
        text = _unmarked(body)
        # Where nothing of the template's is in it, an answer is its own text; white space at its ends is as the template has it.
        own = isinstance(answer, str) and text in (answer, answer.strip(), answer.lstrip(), answer.rstrip())
        ids = encode(self.tokenizer, text, special=False) if own else self._encode(body)
        return self._prompt_ids(frame.prompt), ids, self._encode(frame.closing)

    def _prompt_ids_of(self, prompt: str) -> Ids:
        return self.with_bos(self._encode(prompt))

    def _encode(self, marked: str) -> Ids:
        """The tokens of a template's text; literals of special tokens that a mark breaks are text."""
        if _MARK not in marked:
            return encode(self.tokenizer, marked)
        ids: Ids = ()
        for i, piece in enumerate(self._literals.split(marked)):  # texts, and the special tokens between them
            ids += encode(self.tokenizer, _unmarked(piece), special=i % 2 == 1)
        return ids

    @cached_property
    def _can_break(self) -> bool:
        # Whether the tokenizer can read the literals of special tokens as text.
        return all(len(encode(self.tokenizer, literal, special=False)) > 1 for literal in _specials_of(self.tokenizer))

    def _bounded(self, row: Rendered) -> Rendered:
        fitted = _Fitted((), row.prompt, row.answer, row.closing, row.notes, row.text)
        return self._cut(fitted, row.dropped_turns, row.notes)

    def _cut(self, fitted: _Fitted, turns: int, notes: tuple[str, ...]) -> Rendered:
        prompt, answer, closing = fitted.prompt, fitted.answer, fitted.closing
        over = len(fitted) - self.max_tokens
        if over <= 0:
            return Rendered(prompt, answer, closing, turns, 0, notes, fitted.text)
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
        kept = answer[-room:] if len(answer) > room else answer
        return Rendered(prompt, kept, closing, turns, over, notes, fitted.text)


# -- templates and tokenizers ----------------------------------------------------------------------------------------------------


def apply_template(tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, today: date, opened: bool = False) -> str:
    """The chat template's text for messages (the tools at the first one), with the clock standing at `today`.

    `opened` adds the header of an answer that is to come. Raises what the template raises.
    """
    tools = messages[0].get("tools") if messages else None
    turns = [{k: v for k, v in m.items() if k != "tools"} for m in messages]
    template = tokenizer.get_chat_template(tools=tools)
    more: dict[str, Any] = {}
    if "strftime_now" in template:
        template, more = _FROZEN_CLOCK + template, {"armorm_clock": _clock(today)}
    options = {"tokenize": False, "add_generation_prompt": opened, "chat_template": template, "tools": tools}
    return str(tokenizer.apply_chat_template(turns, **options, **more))


_FROZEN_CLOCK = (
    "{%- macro strftime_now(format) -%}{%- set shown = namespace(text=format) -%}{%- for name, value in armorm_clock -%}"
    "{%- set shown.text = shown.text.replace(name, value) -%}{%- endfor -%}{{- shown.text -}}{%- endmacro -%}"
)
"""Stands in front of a template that asks the clock: a macro of the same name hides transformers' function."""


def _clock(today: date) -> list[list[str]]:
    # What each directive of strftime gives at midnight of that day; the doubled sign first, behind a letter of no template.
    midnight = datetime.combine(today, time())
    named = [
        f"%{flag}{c}" for flag in ("-", "_", "0", "^", "#", "E", "O", "") for c in "aAbBcCdDeFfgGhHIjklmMnpPrRsSTuUVwWxXyYzZ"
    ]
    return [["%%", "\ue0a8"], *([name, midnight.strftime(name)] for name in named), ["\ue0a8", "%"]]


_LOCKS: WeakKeyDictionary[Any, Lock] = WeakKeyDictionary()


def encode(tokenizer: Any, text: str, *, special: bool = True, added: bool = False) -> Ids:
    """A text's token ids. `special` reads special tokens in it as such; `added` puts in front what the tokenizer wants there.

    One thread at a time: a tokenizer keeps such settings in itself while it works, and two threads would mix theirs.
    """
    with _LOCKS.setdefault(tokenizer, Lock()):
        return tuple(tokenizer.encode(text, add_special_tokens=added, split_special_tokens=not special)) if text else ()


def bos_of(tokenizer: Any) -> Ids:
    """What the tokenizer itself would put in front of a text, (bos,) or nothing: added once, where a template did not."""
    bos = tokenizer.bos_token_id
    return (bos,) if bos is not None and encode(tokenizer, "a", added=True)[:1] == (bos,) else ()


def _specials_of(tokenizer: Any) -> tuple[str, ...]:
    # The literals of special tokens, the longest first; texts of one letter are no control.
    added = [str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return tuple(sorted({s for s in added if len(s) > 1}, key=lambda s: (-len(s), s)))


# -- small things ----------------------------------------------------------------------------------------------------------------

_SENTINELS = ("Qx7ArmormAnswerOne", "Zk3ArmormAnswerTwo")
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
_BLOCKS = re.compile("</?think>")
_MARK = "\ue0a7"
"""Breaks the literal of a special token. A private letter, which is taken out of texts that hold it before."""


def _mark(value: Any, literals: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return literals.sub(lambda found: found[0][0] + _MARK + found[0][1:], value)
    if isinstance(value, dict):
        return {_mark(key, literals): _mark(entry, literals) for key, entry in value.items()}
    return [_mark(entry, literals) for entry in value] if isinstance(value, list) else value


def _unmarked(text: str) -> str:
    return text.replace(_MARK, "")


def _common_start(texts: Sequence[str]) -> str:
    low, high = min(texts), max(texts)  # what these two share, all share
    if high.startswith(low):
        return low
    return low[: next((i for i, letter in enumerate(low) if letter != high[i]), len(low))]


def _readable(message: Message, *, parts: bool) -> dict[str, Any]:
    # As templates read it: reasoning under both of the names that they know.
    content = _unmarked(message["content"])
    turn: dict[str, Any] = {**message, "content": [{"type": "text", "text": content}] if parts else content}
    thoughts = next((turn[key] for key in REASONING if turn.get(key)), None)
    return turn if thoughts is None else {"thinking": thoughts, **turn, "reasoning_content": thoughts}


def _with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    # Some templates read a call's arguments as JSON text.
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"].get("arguments")
        written = json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments
        calls.append({**call, "function": {**call["function"], "arguments": written}})
    return {**message, "tool_calls": calls}


def _hashable(context: Sequence[Message]) -> tuple[tuple[str, str, str], ...]:
    plain = {"role", "content"}
    return tuple(
        (m["role"], m["content"], json.dumps({k: v for k, v in m.items() if k not in plain}) if m.keys() > plain else "")
        for m in context
    )


def _message(role: str, content: str, more: str) -> Message:
    return Message(role=role, content=content, **(json.loads(more) if more else {}))  # type: ignore[typeddict-item]


def _question(text: str) -> tuple[tuple[str, str, str], ...]:
    return (("user", text, ""),)


def _merge_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if messages[0]["role"] != "system":
        return messages
    system, user, *rest = messages
    merged: Message = {**user, "content": f"{system['content'].strip()}\n\n{user['content']}"}
    return ({**merged, "tools": system["tools"]} if system.get("tools") else merged, *rest)


@dataclass(frozen=True, slots=True)
class _Fitted:
    # What stays of a conversation, and its tokens.
    context: tuple[Message, ...]
    prompt: Ids
    answer: Ids
    closing: Ids
    notes: tuple[str, ...]
    text: str

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer) + len(self.closing)


class _Shown:
    """A rendering, in which texts are looked for: first behind the last one that was found, since they mostly come in order."""

    def __init__(self, text: str) -> None:
        self.text, self._place = text, 0

    def __contains__(self, text: str) -> bool:
        place = self.text.find(text, self._place)
        place = self.text.find(text) if place < 0 else place
        if place >= 0:
            self._place = place
        return place >= 0


def _frame_bytes(turns: tuple[tuple[str, str, str], ...], frame: Frame) -> int:
    return 512 * (len(turns) + 1) + sum(getsizeof(text) for turn in turns for text in turn) + getsizeof(frame.prompt)


def ids_bytes(text: str, ids: Ids) -> int:
    """What a text and its tokens weigh in memory."""
    return 512 + getsizeof(text) + 40 * len(ids)
