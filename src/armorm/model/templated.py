"""Texts in a chat template's own form, as trainers decode them: where the answer stands in them, and their tokens.

In: a prompt's text and its answer's, or a whole conversation as one text or as token ids.
Out: `Rendered`, which the scoring core takes in place of messages.  Cost: one tokenisation.

With a prompt of its own, the answer's place is the prompt's length, and nothing that the answer says can move it. In one text it
has to be searched for; what imitates the chat in its answer is refused, as far as a text tells (`Marks.is_unclear`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from armorm.conversation import Fault, is_utf8
from armorm.errors import ConversationError
from armorm.model.config import RewardModelConfig
from armorm.model.marks import Marks, marks_of
from armorm.prompts import THOUGHT, answer_behind
from armorm.rendering import LONGEST, Rendered, Renderer, encode

_SAID = "Qx7ArmormSaid"
_TEXT_ENDS = ("<|endoftext|>",)
"""What ends a text in many vocabularies, whatever the template."""


class Templated:
    """Reads texts that one renderer's chat template may have written. Any number of threads may use it."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        tokenizer = renderer.tokenizer
        special = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
        marks = marks_of(renderer)
        how = {"rendering": renderer.rendering.to_json(), "pad_token_id": tokenizer.pad_token_id}
        config = RewardModelConfig(backbone_config=special, **how, **marks)
        self._marks = Marks(config, tokenizer)
        self._header = self._text(marks["header_ids"])
        self._nothing = self._text(marks["empty_ids"]).strip()

    def given(self, prompt: str, answer: str) -> Rendered | None:
        """A prompt and its answer; None where the prompt does not end as this template opens an answer.

        An end token behind the answer is left out. Raises ConversationError for an empty answer.
        """
        _check_size(prompt, answer)
        place = prompt.rfind(self._header) + len(self._header)
        behind = prompt[place:]
        if not self._header or place < len(self._header) or not THOUGHT.fullmatch(behind):
            return None
        return self.renderer.framed(prompt[:place], behind + self._shown(self.without_end(answer)))

    def searched(self, whole: str | Sequence[int]) -> Rendered:
        """A whole conversation as one text or as token ids: its answer stands behind the last header.

        Raises ConversationError where there is no header, no answer, or where the answer's place can't be told.
        """
        ids = self._checked_ids(whole)
        openings = self._marks.openings(ids) if self._header else []
        if not openings:
            raise ConversationError(
                "no-header: the text holds no turn of the assistant as this model's chat template writes it "
                f"({self._header.strip()!r}): send it in that form, or send messages",
                fault="no-header",
            )
        if self._marks.is_unclear(ids, openings):
            raise ConversationError(
                "unclear-answer: the text imitates the chat in its answer, so that the answer's place can't be told: "
                "send messages, or use a protocol that tells the prompt",
                fault="unclear-answer",
            )
        found = self._marks.cut(ids, openings[-1])
        text = self._text(found.answer)
        shown = self._shown(text if found.closing else self.without_end(text))
        answer = found.answer if shown == text else encode(self.renderer.tokenizer, shown, special=False)
        return Rendered(found.prompt, answer, self.renderer.closing_ids, text=shown)

    def answer_in(self, query: str, prompt: str) -> str:
        """What stands in a decoded query behind its prompt. Raises ConversationError for one that does not begin with it."""
        return answer_behind(query, self._ways_of(prompt, query))

    def without_end(self, answer: str) -> str:
        """An answer's text without the one token with which its policy ended it, if it did."""
        return next((answer.removesuffix(end) for end in self._ends if answer.endswith(end)), answer)

    def _ways_of(self, prompt: str, query: str) -> Iterator[str]:
        yield prompt
        _check_size(query, prompt)
        tokenizer = self.renderer.tokenizer  # some tokenizers don't give back a text as it was
        yield str(tokenizer.decode(list(encode(tokenizer, prompt)), skip_special_tokens=False))

    # -- as the template has them ----------------------------------------------------------------------------------------------

    def _shown(self, answer: str) -> str:
        # White space at its ends as the template leaves it, so that the score is that of the messages.
        if answer.strip() in ("", self._nothing):
            raise Fault("empty-turn", "the answer").error()
        before, behind = self._keeps
        answer = answer if before else answer.lstrip()
        return answer if behind else answer.rstrip()

    @cached_property
    def _keeps(self) -> tuple[bool, bool]:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": f"  {_SAID}  "}]
        before, _, behind = self.renderer.render(turns).text.partition(_SAID)
        return before.endswith("  "), behind.startswith("  ")

    @cached_property
    def _ends(self) -> tuple[str, ...]:
        closing, eos = self._text(self.renderer.closing_ids), self.renderer.tokenizer.eos_token
        return tuple(dict.fromkeys(end for end in (closing, closing.strip(), eos, *_TEXT_ENDS) if end and end.strip()))

    def _checked_ids(self, whole: str | Sequence[int]) -> tuple[int, ...]:
        tokenizer = self.renderer.tokenizer
        if isinstance(whole, str):
            _check_size(whole)
            return encode(tokenizer, whole)
        if len(whole) > LONGEST:
            raise Fault("too-long", f"there are {len(whole):,} tokens").error()
        if wrong := next((i for i in whole if not 0 <= i < len(tokenizer)), None):
            raise ConversationError(
                f"unknown-token: {wrong} is none of the model's {len(tokenizer):,} tokens: encode with its tokenizer",
                fault="unknown-token",
            )
        return tuple(whole)

    def _text(self, ids: Sequence[int]) -> str:
        how = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return str(self.renderer.tokenizer.decode(list(ids), **how))


def _check_size(*texts: str) -> None:
    if (size := sum(map(len, texts))) > LONGEST:
        raise Fault("too-long", f"the prompt and its answer have {size:,} characters").error()
    if not all(map(is_utf8, texts)):
        raise Fault("not-utf8").error()
