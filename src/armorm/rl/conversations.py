"""What trainers call a prompt and a completion, as a conversation: texts, messages, or text in a chat template.

In: a prompt and a completion in any of these forms, in lists, tuples, arrays or columns.  Out: messages, as the scoring core and
a server read them; for what can't be read as any, the error that says why, which the rewarder gives no row.

Some trainers hold only the text that their policy read. Where one of the templates in `armorm.prompts` wrote it, it is taken
apart again; a text that looks like another template's has no reward; any other text is one turn of the user's. The routes of a
server read such texts by the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from armorm.conversation import entries_of, plain_value
from armorm.errors import ConversationError, UserError
from armorm.prompts import Family, answer_behind, read_prompt, users_own, whole_prompt

Messages = list[Any]
ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
    "<｜end▁of▁sentence｜>",
)
"""The tokens that end an answer, as decoders write them out."""


def joined(prompt: Any, completion: Any) -> Messages:
    """A prompt (a text, or messages) and its completion (a text, or the turns behind the prompt) as one conversation."""
    prompt, completion = plain(prompt), plain(completion)
    turns = entries_of(completion)
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else (entries_of(prompt) or [])
    return [*asked, *([{"role": "assistant", "content": completion}] if turns is None else turns)]


def from_text(prompt: Any, answer: Any) -> Messages | ConversationError:
    """The same where a prompt's text is the template's own, and the answer may carry the token that ended it."""
    prompt, answer = plain(prompt), plain(answer)
    family = None
    if isinstance(prompt, str):
        if (written := whole_prompt(prompt)) is not None:
            prompt, family = list(written.turns), written.family
        else:
            try:
                prompt = [users_own(prompt)]
            except ConversationError as error:
                return error
    return joined(prompt, without_end(answer, family) if isinstance(answer, str) else answer)


def paired(**columns: Any) -> list[tuple[Any, ...]]:
    """The rows of a batch's columns. Raises UserError for a column that is no list, and for columns of different length."""
    listed = {name: _listed(name, column) for name, column in columns.items()}
    if len({len(column) for column in listed.values()}) > 1:
        told = ", ".join(f"{len(column)} {name}" for name, column in listed.items())
        raise UserError(f"there are {told}: give as many of the one as of the other, row by row")
    return list(zip(*listed.values(), strict=True))


def _listed(name: str, column: Any) -> Sequence[Any]:
    if not isinstance(column, str | bytes | Mapping):
        try:
            return list(column)
        except TypeError:
            pass
    raise UserError(f"{name} is {type(column).__name__}: give a list with one entry for each row")


def from_query(query: Any, prompt: Any) -> Messages | ConversationError:
    """The same of a whole text that begins with its prompt."""
    query, prompt = plain(query), plain(prompt)
    if not (isinstance(query, str) and isinstance(prompt, str)):
        return ConversationError("not-messages: a query and its prompt are texts", fault="not-messages")
    try:
        return from_text(prompt, answer_behind(query, (prompt,)))
    except ConversationError as error:
        return error


def with_written_prompt(turns: list[Any]) -> list[Any]:
    """Turns whose prompt the template wrote into the contents, header of the answer and all, as the turns that it wrote.

    Any other turns stay as they are.
    """
    start = next((i for i, turn in enumerate(turns) if turn.get("role") not in ("system", "user")), len(turns))
    texts = [turn.get("content") for turn in turns[:start]]
    written = read_prompt("".join(texts)) if all(isinstance(text, str) for text in texts) else None
    if written is None or not written.headed:
        return turns
    answers = [
        {**turn, "content": without_end(turn["content"], written.family)} if isinstance(turn.get("content"), str) else turn
        for turn in turns[start:]
    ]
    return [*_one_system(written.turns), *answers]


def _one_system(turns: tuple[dict[str, str], ...]) -> list[dict[str, str]]:
    # A trainer that writes the system's turn and the user's one by one gets the template's own system turn between them.
    n = next((i for i, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
    said = "\n\n".join(turn["content"] for turn in turns[:n])
    return [*([{"role": "system", "content": said}] if n else ()), *turns[n:]]


def without_end(answer: str, family: Family | None = None) -> str:
    """An answer without the tokens that ended it; `</s>`, which ends a tag too, only where the prompt's family may end so."""
    known = family is None or "</s>" in family.closings
    ends = ENDS if known else tuple(end for end in ENDS if end != "</s>")
    end = len(answer)
    while True:
        closed = end
        while closed and answer[closed - 1] == "\n":
            closed -= 1
        mark = next((mark for mark in ends if answer.endswith(mark, 0, closed)), None)
        if mark is None:
            return answer[:end]
        end = closed - len(mark)


def plain(value: Any) -> Any:
    """Plain lists and texts in place of arrays, tuples and columns; what is nested without end as it is."""
    try:
        return plain_value(value)
    except ConversationError:
        return value


def prompt_in(facts: Any, *keys: str) -> Any:
    """The first of some columns that holds a prompt; None where none does."""
    facts = facts if isinstance(facts, Mapping) else plain(facts)
    if not isinstance(facts, Mapping):
        return None
    for key in keys:
        if isinstance(text := plain(facts.get(key)), str):
            return text
        if entries_of(text):
            return facts[key]
    return None
