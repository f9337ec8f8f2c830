"""Conversations: messages in order, whatever they come in; what is none has a fault with a name and a remedy.

In: messages of a person's, a file's or another program's: role and content (or `from` and `value`), tool calls, reasoning, parts.
Out: `Parsed`: plain messages of known keys that end with the assistant's answer, and notes of what was put right.

The tools that an assistant may call stand at the first message, under `tools`, so that a conversation is one list.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NotRequired, TypedDict, cast
from uuid import UUID

from armorm.errors import ConversationError
from armorm.user_json import DEEPEST, JsonFault, read_json


class Message(TypedDict):
    """One turn. Reasoning stands under the name that it came with; `tools` only at the first message."""

    role: str
    content: str
    reasoning_content: NotRequired[str]
    thinking: NotRequired[str]
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    tools: NotRequired[list[dict[str, Any]]]


Conversation = Sequence[Message]
"""Messages in order: an optional system message, then the user's, the assistant's and tools' turns, the assistant last."""
Answer = str | tuple[Message, ...]
"""What the assistant says to a context: a text, or turns where there is more than text in it."""
Span = Literal["last-turn", "trajectory"]
"""What is the answer: the last turn, or everything behind the user's last turn."""

ROLES = ("system", "user", "assistant", "tool")
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names under which the assistant's reasoning comes."""
_SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
"""Who speaks in ShareGPT's `from`, where it is no role."""
_FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "assistant", "tool"),
    "tool": ("user", "assistant", "tool"),
}
"""Which role may follow which."""
_TEXT_PARTS = ("text", "input_text", "output_text")
_LONGEST_NUMBER = 10_000
"""Bits of a whole number; Python writes no longer one than some 14,000 as digits."""
_MEDIA = ("images", "image", "audio", "audios", "videos", "video")


class Fault(str):
    """Why something is no conversation: a short stable name (counted in reports), with what was seen and a remedy."""

    REMEDIES: Mapping[str, str] = {
        "not-messages": "give a list of {'role': …, 'content': …} with text contents",
        "python-repr": "this is how Python prints a list, which is no JSON: write it with json.dumps, or keep lists as lists",
        "not-text": "only text can be scored: leave out images, sound and other parts",
        "empty-turn": "fill in or remove the turn without text",
        "unknown-role": "use the roles system, user, assistant and tool",
        "not-alternating": "start with the user (a system message may come first) and let the assistant answer each user's turn",
        "no-answer": "end the conversation with the assistant's answer",
        "not-utf8": "remove the unpaired surrogates or bytes that are no UTF-8",
        "too-long": "make it shorter: a question with its answer may have 4 Mi characters, a row of a file 64 MiB",
        "too-deep": "make it flatter: at most 100 objects and lists within each other are read",
        "template-refuses": "change the conversation, or the chat template; a system message can be merged into the user's turn",
        "tool-calls-unread": "the chat template shows no tool calls, so that all would score alike: use one that does",
        "tool-turns-unread": "the chat template shows no turns of tools: use one that does",
        "answer-unread": "the chat template leaves nothing of this answer, or moves its prompt: use another template",
    }
    detail: str

    def __new__(cls, name: str, detail: str = "") -> Fault:
        fault = super().__new__(cls, name)
        fault.detail = detail
        return fault

    @property
    def remedy(self) -> str:
        return self.REMEDIES.get(self, "")

    @property
    def sentence(self) -> str:
        """The name, what was seen, and the remedy."""
        return f"{self}: {self.detail}; {self.remedy}" if self.detail else f"{self}: {self.remedy}"

    def error(self) -> ConversationError:
        """An error that carries this fault."""
        return ConversationError(self.sentence, fault=self)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A conversation, and what was put right or left out on the way ("empty-system", "key 'weight'"), to be counted."""

    messages: tuple[Message, ...]
    notes: tuple[str, ...] = ()


def parse_conversation(given: Any, *, tools: Any = None) -> Parsed:
    """Read a conversation: any ordered collection of messages (list, tuple, array, column, generator), or a mapping that holds
    them as `messages`, with `system` and `tools` beside them.

    Contents that are lists of text parts are joined; an empty system message is dropped, with a note. Raises ConversationError,
    whose `fault` names what is wrong.
    """
    system = None
    if isinstance(given, Mapping) and "messages" in given:
        given, system, tools = given["messages"], given.get("system"), given.get("tools") if tools is None else tools
    turns = entries_of(given)
    if not turns:
        raise Fault("not-messages", f"got {kind_of(given)}" if turns is None else "got an empty list").error()
    notes: dict[str, None] = {}
    messages = [_message(turn, i, notes) for i, turn in enumerate(turns, start=1)]
    if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
        messages = [Message(role="system", content=system), *messages]
    listed = _tools(tools)
    known = set(map(_written, listed))
    for message in messages:  # wherever they stand, they are the conversation's
        for tool in message.pop("tools", ()):
            if (written := _written(tool)) not in known:
                known.add(written)
                listed.append(tool)
    if messages[0]["role"] == "system" and not messages[0]["content"].strip():
        notes["empty-system"] = None
        messages = messages[1:]
    if messages and listed:
        messages[0]["tools"] = listed
    if fault := _order_fault(messages):
        raise fault.error()
    return Parsed(tuple(messages), tuple(notes))


def fault_in(messages: Any) -> Fault | None:
    """What makes `messages` no scorable conversation, or None."""
    try:
        parse_conversation(messages)
    except ConversationError as error:
        return cast(Fault, error.fault)
    return None


def entries_of(given: Any) -> list[Any] | None:
    """The entries of anything that holds some in order; None for what is no such thing (texts and mappings are none)."""
    if given is None or isinstance(given, str | bytes | Mapping | set | frozenset):
        return None
    given = _plain(given)
    if given is None or isinstance(given, str | bytes | Mapping):
        return None
    try:
        return list(given)
    except TypeError:
        return None


def is_one_conversation(given: Sequence[Any]) -> bool:
    """Whether these entries are messages rather than conversations."""
    return bool(given) and isinstance(given[0], Mapping) and "messages" not in given[0]


def kind_of(value: Any) -> str:
    """What a value is, for messages to people."""
    return "nothing" if value is None else f"{'an' if type(value).__name__[:1] in 'aeiou' else 'a'} {type(value).__name__}"


def is_python_repr(text: str) -> bool:
    """Whether a text is how Python prints messages, calls or tools."""
    return bool(re.match(r"\s*+(?:\[\s*+)?\{\s*+'(?:role|content|from|value|type|name|function)'\s*:", text))


def is_utf8(text: str) -> bool:
    """Whether the text can be written as UTF-8 (JSON can smuggle in unpaired surrogates)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# -- an answer and its context -------------------------------------------------------------------------------------------------


def split_answer(messages: Conversation, span: Span = "last-turn") -> tuple[tuple[Message, ...], Answer]:
    """A conversation's context and its answer."""
    start = len(messages) - 1
    if span == "trajectory":
        start = max((i + 1 for i, m in enumerate(messages) if m["role"] == "user"), default=start)
    return tuple(messages[:start]), answer_of(messages[start:])


def answer_of(turns: Sequence[Message]) -> Answer:
    """Turns as an answer: a text where they are no more than one."""
    plain = len(turns) == 1 and turns[0]["role"] == "assistant" and turns[0].keys() == {"role", "content"}
    return turns[0]["content"] if plain else tuple(turns)


def turns_of(answer: Answer) -> tuple[Message, ...]:
    """An answer as turns."""
    return (Message(role="assistant", content=answer),) if isinstance(answer, str) else answer


def last_question(messages: Sequence[Message]) -> str:
    """What the user said last; "" where no user speaks."""
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")


def text_of(answer: Answer) -> str:
    """An answer for people and programs that read texts: tool calls and reasoning are written out."""
    return answer if isinstance(answer, str) else "\n\n".join(map(written_out, answer))


def written_out(message: Message) -> str:
    """One turn as text: its reasoning, its content, its tool calls as JSON."""
    reasoning = [f"<think>\n{message[key]}\n</think>" for key in REASONING if message.get(key)]  # type: ignore[literal-required]
    calls = [json.dumps(call.get("function", call), ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join((*reasoning, *([message["content"]] if message["content"] else ()), *calls))


# -- the identity of a prompt ---------------------------------------------------------------------------------------------------


def prompt_group(messages: Iterable[Message]) -> str:
    """The group of a prompt: a hash of its first user turn, letter case, white space and the marks that end sentences aside.

    Rows that share it stand on the same side of every split. Whatever may change what is asked (operators, signs within words and
    numbers, combining marks) is kept: prompts that are only alike are near, not the same.
    """
    return _group_of(next((m["content"] for m in messages if m["role"] == "user"), ""))


@lru_cache(maxsize=8)  # a row's group is asked for several times, and neighbours often share a prompt
def _group_of(first: str) -> str:
    whole = " ".join(_composed(first).split()).casefold()
    normal = quoted[1] if (quoted := _QUOTED.fullmatch(whole)) else whole
    normal = _STOPS.sub(_without_stop, _EXCLAIMED.sub(_without_exclamation, normal))
    normal = _QUOTES.sub(" ", normal)
    normal = " ".join(normal.split()) or whole  # a prompt of nothing but marks keeps them
    return "g" + hashlib.sha256(normal.encode("utf-8", "replace")).hexdigest()[:16]


_QUOTED = re.compile(r"['‘「]([^'‘’「」]+)['’」]")
_EXCLAIMED = re.compile(r"[!！]++")
_BEFORE = re.compile(r"(?<![\d)])(?<![\d)]\s)(?<!\b\w)")  # 5! and n! are numbers
_STOPS = re.compile(r"[,.;:?…、。，；：？]++")
_BEHIND = re.compile(r"[\"”»]*+(?:\s|($))")
_QUOTES = re.compile(
    r"[\"“„«¿¡”»—](?:"
    r"(?<=[\"“„«¿¡])(?:(?<=^.)|(?<=\s.))[\"“„«¿¡]*+(?:[\"”»]++(?=\s|$))?"
    r"|(?<=[\"”»])(?<![\"”»].)[\"”»]*+(?=\s|$)"
    r"|(?<=—)(?<!\d.)(?<!\d\s.)(?!\s?\d))"
)
"""Marks that part or quote sentences and say nothing else. A run of them is looked at once, so that time follows the length;
patterns open with the marks and look back from there, since such are found fastest."""
_OPENED = re.compile(r"[\s\"“„«‘'(\[]")
_MOST_MARKS = 100
"""So many combining marks behind one letter are brought into order; Python takes quadratic time for it."""


def _without_exclamation(found: re.Match[str]) -> str:
    ends = _BEFORE.match(found.string, found.start()) and _BEHIND.match(found.string, found.end())
    return " " if ends else found[0]


def _without_stop(found: re.Match[str]) -> str:
    # The marks behind a word; of those that stand by themselves or open something, the first stays.
    run, start = found[0], found.start()
    if (behind := _BEHIND.match(found.string, found.end())) is None:
        return run
    before = found.string[start - 1] if start else " "
    asks = before.isspace() and start > 0 and not run.strip("?？…") and behind[1] is not None
    return " " if asks or not _OPENED.match(before) else run[0] + " " * (len(run) > 1)


def _composed(text: str) -> str:
    return "".join(unicodedata.normalize("NFC", piece) for piece in _between_runs(text))


def _between_runs(text: str) -> Iterator[str]:
    start = marks = 0
    for i, letter in enumerate(text) if not text.isascii() else ():
        marks = marks + 1 if unicodedata.combining(letter) else 0
        if marks == _MOST_MARKS:
            yield text[start : i + 1]
            start, marks = i + 1, 0
    yield text[start:]


# -- one message -----------------------------------------------------------------------------------------------------------------


def _message(given: Any, number: int, notes: dict[str, None]) -> Message:
    if not isinstance(given, Mapping):
        raise Fault("not-messages", f"turn {number} is {kind_of(given)}").error()
    values = {key: plain_value(value) for key, value in given.items()}
    if "role" not in values and "from" in values:
        values = _from_sharegpt(values)
    role = values.pop("role", None)
    if not isinstance(role, str):
        raise Fault("not-messages", f"turn {number} has no role").error()
    if role == "developer":  # the system's name in newer programs
        role = "system"
    if role not in ROLES:
        raise Fault("unknown-role", f"turn {number} is by {role[:40]!r}").error()
    given_content = values.pop("content", None)
    content, thoughts = _content(given_content, number)
    message = Message(role=role, content=content)
    if thoughts and not any(values.get(key) for key in REASONING):
        values[REASONING[0]] = thoughts
    _add_more(message, values, number, notes)
    if not content.strip() and role != "system" and not _says_more(message):
        if given_content is None:
            raise Fault("not-messages", f"turn {number} has no content").error()
        raise Fault("empty-turn", f"turn {number} by the {role}" if number > 1 else "").error()
    if not all(map(is_utf8, texts_in(message))):
        raise Fault("not-utf8", f"turn {number}").error()
    return message


def _says_more(message: Message) -> bool:
    # What a tool gives back may be empty, and an assistant may do nothing but call one.
    return message["role"] == "tool" or bool(message.get("tool_calls")) or any(message.get(key) for key in REASONING)


def _from_sharegpt(values: dict[str, Any]) -> dict[str, Any]:
    who, said = values.pop("from"), values.pop("value", None)
    turn = {**values, "role": _SPEAKERS.get(who, who) if isinstance(who, str) else who, "content": said}
    if who == "function_call" and isinstance(said, str):
        calls = _parsed(said)
        if isinstance(calls, Mapping | list):
            turn |= {"content": "", "tool_calls": calls if isinstance(calls, list) else [calls]}
    return turn


def _content(given: Any, number: int) -> tuple[str, str]:
    # The text, and reasoning that stands among the parts.
    if given is None:
        return "", ""
    if isinstance(given, str):
        return given, ""
    parts = [given] if isinstance(given, Mapping) else given
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise Fault("not-messages", f"the content of turn {number} is {kind_of(given)}").error()
    text, thoughts = list[str](), list[str]()
    for part in parts:
        kind = part.get("type", "text")
        found = part.get("text") if kind in _TEXT_PARTS else part.get(kind) if kind in REASONING else None
        if not isinstance(found, str):
            raise Fault("not-text", f"turn {number} holds {str(kind)[:40]!r}").error()
        (text if kind in _TEXT_PARTS else thoughts).append(found)
    return "".join(text), "\n".join(thoughts)


def _add_more(message: Message, values: Mapping[str, Any], number: int, notes: dict[str, None]) -> None:
    known = cast(dict[str, Any], message)
    for key, value in values.items():
        if value is None or value == "" or value == [] or value == {}:
            continue
        if key in _MEDIA:
            raise Fault("not-text", f"turn {number} holds {key!r}").error()
        if key == "tool_calls" or (key == "function_call" and isinstance(value, Mapping)):
            known["tool_calls"] = _calls(value if key == "tool_calls" else [value], number)
        elif key == "tools":
            known["tools"] = _tools(value)
        elif key in (*REASONING, "name", "tool_call_id") and isinstance(value, str):
            known[key] = value
        else:
            notes[f"key {str(key)[:40]!r} of messages not read"] = None


def _calls(given: Any, number: int) -> list[dict[str, Any]]:
    # In the form that chat templates read: arguments as an object, also where they come as JSON text.
    calls = _parsed(given) if isinstance(given, str) else given
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise Fault("not-messages", f"the tool calls of turn {number} are {kind_of(given)}").error()
    found = []
    for call in calls:
        whole = dict(call) if isinstance(call.get("function"), Mapping) else {"type": "function", "function": dict(call)}
        function = dict(whole["function"])
        arguments = function.get("arguments")
        parsed = _parsed(arguments) if isinstance(arguments, str) else arguments
        function["arguments"] = parsed if isinstance(parsed, Mapping) else arguments if arguments is not None else {}
        found.append(_json_value({**whole, "function": function}, f"the tool calls of turn {number}"))
    return found


def _tools(given: Any) -> list[dict[str, Any]]:
    tools = plain_value(given)
    if isinstance(given, str) and given.strip():
        tools = _parsed(given)
        if tools is None:
            raise Fault("python-repr" if is_python_repr(given) else "not-messages", "the tools are a text").error()
    if tools in (None, "", [], {}) or (isinstance(tools, str) and not tools.strip()):
        return []
    listed = [tools] if isinstance(tools, Mapping) else tools
    if not isinstance(listed, list) or not all(isinstance(tool, Mapping) for tool in listed):
        raise Fault("not-messages", f"the tools are {kind_of(given)}").error()
    found = [_json_value(tool, "the tools") for tool in listed]
    if not all(map(is_utf8, texts_in(found))):
        raise Fault("not-utf8", "the tools").error()
    return found


def _written(tool: dict[str, Any]) -> str:
    return json.dumps(tool, sort_keys=True)


def _json_value(value: Any, where: str) -> Any:
    # As JSON has it, in which templates, keys and files write calls and tools: dates and exact numbers of tables are texts there.
    if isinstance(value, Mapping):
        found = {_json_key(key, where): _json_value(entry, where) for key, entry in value.items()}
        if len(found) < len(value):
            raise Fault("not-messages", f"{where} hold two keys that are one in JSON, such as 1 and '1'").error()
        return found
    if isinstance(value, list):
        return [_json_value(entry, where) for entry in value]
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta | Decimal | UUID):
        return str(value)
    if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
        raise Fault("not-messages", f"{where} hold a number of thousands of digits").error()
    if value is None or isinstance(value, str | int | float):
        return value
    raise Fault("not-messages", f"{where} hold {kind_of(value)}, which JSON has not").error()


def _json_key(key: Any, where: str) -> str:
    value = _json_value(_plain(key), where)
    return value if isinstance(value, str) else json.dumps(value)


def _order_fault(messages: Sequence[Message]) -> Fault | None:
    if not messages or messages[-1]["role"] != "assistant":
        return Fault("no-answer")
    last = ""
    for i, message in enumerate(messages, start=1):
        role = message["role"]
        if role == "system" and i == 1:
            continue
        if role not in _FOLLOWS[last]:
            return Fault("not-alternating", f"turn {i} is by the {role}")
        last = role
    return None


def _plain(value: Any) -> Any:
    # Arrays and columns of tables (numpy, pandas, pyarrow), whose own numbers and texts become plain ones.
    way = next((way for way in ("to_pylist", "as_py", "tolist") if hasattr(value, way)), None)
    return value if way is None else getattr(value, way)()


def plain_value(value: Any, within: tuple[int, ...] = ()) -> Any:
    """A value in plain lists, mappings, numbers and texts, whatever arrays it comes in. `within` are the ids of what holds it.

    Raises ConversationError for one that holds itself, or is nested deeper than any row.
    """
    value = _plain(value)
    if not isinstance(value, Mapping | list | tuple):
        return value
    if id(value) in within or len(within) > DEEPEST:
        raise Fault("too-deep", "a part of it is nested without end").error()
    inner = (*within, id(value))
    if isinstance(value, Mapping):
        return {key: plain_value(entry, inner) for key, entry in value.items()}
    return [plain_value(entry, inner) for entry in value]


def texts_in(value: Any) -> Iterator[str]:
    """Every text in nested lists and mappings, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for entry in (*value, *value.values()):
            yield from texts_in(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from texts_in(entry)


def _parsed(text: str) -> Any:
    try:
        return read_json(text)
    except JsonFault:
        return None
