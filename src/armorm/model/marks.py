"""What a chat template writes around answers, found in bare token ids: headers, questions behind answers, closings.

In: a row's tokens, a model's config, its tokenizer if there is one.  Out: places, and a row cut into `Rendered`.
Cost: a comparison per token; where an answer has to be read anew, one decoding and one encoding of its text.

An answer that begins with white space joins the last tokens of its header when both are tokenised as one text: "assistant",
"\\n" and "  Seven." become "assistant", "\\n ", " Seven", ".". The header's tokens up to its last added one ("<|im_start|>")
never join, since tokenizers cut texts there first: they are searched for, and the text behind them says whether it is a header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonprefix
from typing import Any

from armorm.model.config import RewardModelConfig
from armorm.model.padding import ends_of, ends_with
from armorm.rendering import Ids, Rendered, Renderer, apply_template, bos_of, encode


@dataclass(frozen=True, slots=True)
class Opening:
    """An answer header that starts at `place`; `whole` where none of its tokens has joined the answer's first ones."""

    place: int
    whole: bool


class Marks:
    """A chat template's own tokens, as a model's config has them."""

    def __init__(self, config: RewardModelConfig, tokenizer: Any = None) -> None:
        self.header, self.closing = tuple(config.header_ids), tuple(config.closing_ids)
        self.empty = tuple(config.empty_ids)
        self.questions = [tuple(question) for question in config.question_ids]
        self.tokenizer = tokenizer
        self._one_turn = config.rendering.get("answer", "last-turn") == "last-turn"
        self._ends = ends_of(config)
        self._single = {*self._ends, config.pad_token_id, config.backbone_config.get("bos_token_id")}
        self._added = {} if tokenizer is None else tokenizer.added_tokens_decoder

    # -- where things stand ------------------------------------------------------------------------------------------------------

    def openings(self, row: Ids) -> list[Opening]:
        """The answer headers in a row, in order. Without a tokenizer, one that lacks its last token alone counts as joined."""
        found = [Opening(place, row[place : place + len(self.header)] == self.header) for place in _places(row, self._stem)]
        return [opening for opening in found if opening.whole or self._joins(row, opening.place)]

    def is_unclear(self, row: Ids, openings: list[Opening]) -> bool:
        """Whether the last header may stand inside the answer, or the answer behind none.

        So it is where no question stands between the last two headers, or one behind the last. An answer that imitates a question
        and a header looks like a conversation of more turns: ids alone can't tell. Of an answer that may be several turns, all
        headers but a single one are unclear.
        """
        if not self._one_turn:
            return len(openings) > 1
        if not self.questions:
            return False  # folders of earlier versions don't know them
        asked = [place for question in self.questions for place in _places(row, question)]
        last = openings[-1].place
        again = len(openings) > 1 and not any(openings[-2].place < place < last for place in asked)
        return again or any(place > last for place in asked)

    def closing_in(self, rest: Ids) -> int:
        """How many tokens at the end are the closing's: all of it, with EOS behind it too, or its start if that is an EOS."""
        behind = next((n for n, token in enumerate(reversed(rest)) if token not in self._ends), len(rest))
        if ends_with(rest, self.closing):
            return len(self.closing)
        if behind and ends_with(rest[:-behind], self.closing):
            return len(self.closing) + behind
        stopped = self.closing[:1] and self.closing[0] in self._ends
        parts = range(len(self.closing) - 1, 0, -1) if stopped else ()
        return next((n for n in parts if ends_with(rest, self.closing[:n])), 0)

    def says_nothing(self, answer: Ids) -> bool:
        """Whether an answer is empty, or white space as far as a tokenizer tells."""
        if self.tokenizer is None:
            return answer in ((), self.empty)
        return self._text(answer).strip() in ("", self._text(self.empty).strip())

    # -- a row in three segments -------------------------------------------------------------------------------------------------

    def cut(self, row: Ids, opening: Opening) -> Rendered:
        """The row as `score` has it: its answer is read anew where its tokens are not those of its text alone."""
        start = opening.place + (len(self.header) if opening.whole else 0)
        size = len(row) - self.closing_in(row[start:])
        prompt, answer, closing = row[: opening.place] + self.header, row[start:size], row[size:]
        if self.tokenizer is None:
            return Rendered(prompt, answer, closing)
        prompt = prompt if prompt[: len(self._bos)] == self._bos else self._bos + prompt
        text = self._text(answer) if opening.whole else self._text(answer).removeprefix(self._header_text)
        if self._closing_joins and not closing and text.endswith(self._text(self.closing)):
            text, closing = text.removesuffix(self._text(self.closing)), self.closing
        # What stands around white space, or special tokens, may have changed the answer's tokens.
        if not opening.whole or text[:1].isspace() or self._closing_joins or self._structure & set(answer):
            answer = encode(self.tokenizer, text, special=False)
        return Rendered(prompt, answer, closing)

    # -- tokens and their texts --------------------------------------------------------------------------------------------------

    @cached_property
    def _stem(self) -> Ids:
        # The header's tokens that no answer can join.
        if self.tokenizer is None:
            return self.header[:-1] or self.header
        return self.header[: 1 + max((i for i, token in enumerate(self.header) if token in self._added), default=0)]

    def _joins(self, row: Ids, place: int) -> bool:
        if self.tokenizer is None:
            return True
        reach = place + len(self._stem) + len(self._header_text.encode())  # a token is a byte at least
        return self._text(row[place:reach]).startswith(self._header_text)

    @cached_property
    def _header_text(self) -> str:
        return self._text(self.header)

    @cached_property
    def _bos(self) -> Ids:
        return bos_of(self.tokenizer)

    @cached_property
    def _closing_joins(self) -> bool:
        return bool(self.closing) and self.closing[0] not in self._added

    @cached_property
    def _structure(self) -> set[int]:
        # Special tokens that are text in an answer: those that make turns, and those that the template does not write within one.
        marks = {*self.header, *self.closing, *(token for question in self.questions for token in question), *self._single}
        template = str(self.tokenizer.chat_template or "")
        return {i for i, token in self._added.items() if token.special and (i in marks or str(token.content) not in template)}

    def _text(self, ids: Ids) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _places(row: Ids, part: Ids) -> list[int]:
    # Where these tokens stand.
    return [i for i in range(len(row) - len(part) + 1) if row[i] == part[0] and row[i : i + len(part)] == part]


# -- as a template has them ------------------------------------------------------------------------------------------------------

_SAID, _ASKED = "Qx7ArmormSaid", "Zk3ArmormAsked"
_BEGINNINGS = ("a", " a", "\na", "\n\n", "\ta", "1", "{", '"')
"""Texts that may join the last token of what stands in front of them, in as many ways as there are."""
_CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": {"a": "b"}}}


def marks_of(renderer: Renderer) -> dict[str, Any]:
    """The fields of a model's config that hold its template's marks."""
    said = renderer.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": _SAID}]).answer
    around = str(renderer.tokenizer.decode(list(said), clean_up_tokenization_spaces=False)).replace(_SAID, "")
    return {
        "header_ids": list(renderer.header_ids),
        "closing_ids": list(renderer.closing_ids),
        "question_ids": [list(question) for question in _question_ids(renderer)],
        "empty_ids": list(encode(renderer.tokenizer, around)),
    }


def _question_ids(renderer: Renderer) -> list[Ids]:
    # Empty where the template shows a user's or a tool's turn behind an answer in a way that these don't tell.
    said = {"role": "assistant", "content": _SAID}
    tool = {"role": "tool", "name": "f", "tool_call_id": _CALL["id"], "content": _ASKED}
    users, tools = (_opening_ids(renderer, [said, turn]) for turn in ({"role": "user", "content": _ASKED}, tool))
    called = _shown(renderer, [{"role": "assistant", "content": "", "tool_calls": [_CALL]}, tool])
    if not users or (not tools and _ASKED in called):
        return []
    return [users, *([tools] if tools and tools != users else [])]


def _opening_ids(renderer: Renderer, turns: Sequence[Mapping[str, Any]]) -> Ids:
    between, found, _ = _shown(renderer, turns).partition(_SAID)[2].partition(_ASKED)
    if not found:
        return ()
    tokenizer = renderer.tokenizer
    closing = str(tokenizer.decode(list(renderer.closing_ids), clean_up_tokenization_spaces=False))
    behind = between.removeprefix(closing)  # a call may be closed in another way than an answer
    opens = encode(tokenizer, behind)[:1]
    text = behind if opens and opens[0] in tokenizer.added_tokens_decoder else between
    return tuple(commonprefix([encode(tokenizer, text + more) for more in _BEGINNINGS]))  # noqa: RUF071 - of tokens, no paths


def _shown(renderer: Renderer, turns: Sequence[Mapping[str, Any]]) -> str:
    try:
        return apply_template(renderer.tokenizer, [{"role": "user", "content": "a"}, *turns], today=renderer.rendering.today)
    except Exception:  # templates raise what they like for roles and orders that they don't know
        return ""
