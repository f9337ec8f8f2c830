"""A pairwise preference model: a causal decoder that reads a prompt with both answers and says A or B.

In: a folder or hub id, pairs of conversations that differ in their last answer.
Out: `PairwiseModel`, a PairScorer; `PairRenderer`, whose tokens it reads and is trained on.
Cost: two forward passes of the decoder per pair, one for each order.

The form is that of the ranking model in SLiC-HF (arXiv 2305.10425), the wording our own: one user turn holds the whole context
and both answers, and P(A) is what the token after the assistant's header says, between the two letters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import transformers
from jaxtyping import Float
from scipy.special import expit

from armorm.bounded import Remembered
from armorm.conversation import Conversation, Message, parse_conversation, split_answer, text_of, written_out
from armorm.errors import BackboneError, ConversationError, DataError
from armorm.features.backbone import DType, architecture_of, device_of, fingerprint, load_headed, longest_of
from armorm.features.forward import clone_shallowly, last_states, pad_right
from armorm.features.packing import pack
from armorm.rendering import REMEMBERED, Rendered, Renderer, encode, ids_bytes
from armorm.scorers import Preferences

Verdict = Literal["A", "B"]
VERDICTS: tuple[Verdict, Verdict] = ("A", "B")
IGNORED = -100
"""The label of a token that training does not look at."""

INSTRUCTION = (
    "Below stand a conversation and two possible answers to its last message, A and B. Decide which of them is better: more "
    "helpful, more correct, safer. Neither their order nor their length counts.\n\n### Conversation\n\n"
)
HEADINGS = ("\n\n### Answer A\n\n", "\n\n### Answer B\n\n")
QUESTION = "\n\n### Verdict\n\nWhich answer is better? Reply with its letter alone, A or B."
SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
LEAST_ROOM = 32
"""Tokens that context and answers must at least find room in."""


@dataclass(frozen=True, slots=True)
class RenderedPair:
    """A prompt with two answers as token ids, in the order of the segments; the verdict is the token that follows.

    `cut_context` and `cut_answers` (A's, B's) say how many tokens truncation took from the left of each.
    """

    instruction: tuple[int, ...]
    context: tuple[int, ...]
    heading_a: tuple[int, ...]
    answer_a: tuple[int, ...]
    heading_b: tuple[int, ...]
    answer_b: tuple[int, ...]
    question: tuple[int, ...]
    cut_context: int = 0
    cut_answers: tuple[int, int] = (0, 0)

    @property
    def ids(self) -> tuple[int, ...]:
        opened = self.instruction + self.context
        return opened + self.heading_a + self.answer_a + self.heading_b + self.answer_b + self.question

    @property
    def cut_tokens(self) -> int:
        return self.cut_context + sum(self.cut_answers)


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A rendered pair and its verdict: `labels` is IGNORED everywhere but at the last token, the verdict's.

    `labels` [t] stand beside `input_ids` [t], as transformers' causal models take them (these shift by one themselves).
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut_tokens: int = 0


class PairRenderer:
    """Turns pairs of conversations into tokens with one tokenizer's chat template.

    Texts are tokenised apart from the frame and from each other, without special tokens, so nothing that an answer says can
    move a boundary; white space around them is no part of them. `max_tokens` bounds a pair with its verdict. What does not fit
    is cut from the left: first the context, which keeps at least a quarter of the room for texts, then the answers, each of
    which keeps at least half of what is left. That rule does not look at the order, so both orders read the same texts.

    `verdict_ids` are the tokens of A and B behind the assistant's header. Raises BackboneError for a tokenizer without a chat
    template, one to which a letter is no single token of its own, and for `max_tokens` that leave no room.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int) -> None:
        renderer = Renderer(tokenizer, max_tokens=max_tokens)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        before, after = self._frame()
        closing = QUESTION + after
        self._instruction = renderer.with_bos(encode(self.tokenizer, before + INSTRUCTION))
        self._headings = tuple(encode(self.tokenizer, h) for h in HEADINGS)
        self._question = encode(self.tokenizer, closing)
        self.verdict_ids = self._verdict_ids(closing)
        fixed = sum(map(len, (self._instruction, *self._headings, self._question))) + 1
        self._room = max_tokens - fixed
        if self._room < LEAST_ROOM:
            raise BackboneError(
                f"max_tokens is {max_tokens}, of which the frame around a pair takes {fixed}: use at least {fixed + LEAST_ROOM}"
            )
        self._plain = Remembered(renderer.plain, ids_bytes, REMEMBERED)

    def render(self, a: Conversation, b: Conversation) -> RenderedPair:
        """The pair with `a`'s answer shown as A.

        Raises ConversationError when either is no conversation (see `parse_conversation`), DataError when their contexts differ.
        """
        (turns, one), (others, other) = (split_answer(parse_conversation(c).messages, "trajectory") for c in (a, b))
        if turns != others:
            raise DataError("the two conversations of a pair differ before their last answer: pair answers to one prompt")
        context = self._plain(_context(turns))
        answers = self._plain(text_of(one)), self._plain(text_of(other))
        keep, *keeps = _shares(len(context), len(answers[0]), len(answers[1]), self._room)
        kept = [_end(answer, n) for answer, n in zip(answers, keeps, strict=True)]
        return RenderedPair(
            self._instruction,
            _end(context, keep),
            self._headings[0],
            kept[0],
            self._headings[1],
            kept[1],
            self._question,
            len(context) - keep,
            (len(answers[0]) - keeps[0], len(answers[1]) - keeps[1]),
        )

    def training_example(self, a: Conversation, b: Conversation, better: Verdict) -> TrainingExample:
        """The pair with `a`'s answer shown as A, and the verdict that is right. Raises as `render` does."""
        rendered = self.render(a, b)
        verdict = self.verdict_ids[VERDICTS.index(better)]
        ids = rendered.ids
        return TrainingExample((*ids, verdict), (IGNORED,) * len(ids) + (verdict,), rendered.cut_tokens)

    def _frame(self) -> tuple[str, str]:
        # What the template puts around a user's turn, up to where the assistant's answer starts.
        try:
            texts = [
                self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}], tokenize=False
                )
                for user, assistant in _SENTINELS
            ]
        except Exception as error:  # templates raise what they like
            raise BackboneError(f"the chat template refuses a question with an answer: {error}") from error
        frames = []
        for text, (user, assistant) in zip(texts, _SENTINELS, strict=True):
            before, found, rest = text.partition(user)
            after, answered, _ = rest.partition(assistant)
            frames.append((before, after) if found and answered and user not in rest else None)
        if frames[0] is None or frames[0] != frames[1]:
            raise BackboneError("the chat template does not put a question and its answer into its text once each, in that order")
        return frames[0]

    def _verdict_ids(self, closing: str) -> tuple[int, int]:
        # Behind the frame's own text; where a letter would grow together with that, as an answer's fresh first token.
        there = encode(self.tokenizer, closing)
        behind = [encode(self.tokenizer, closing + letter) for letter in VERDICTS]
        if all(ids[: len(there)] == there for ids in behind) and all(len(ids) == len(there) + 1 for ids in behind):
            found = [ids[len(there) :] for ids in behind]
        else:
            found = [encode(self.tokenizer, letter) for letter in VERDICTS]
        unknown = (self.tokenizer.unk_token_id,)
        if any(len(ids) != 1 or ids == unknown for ids in found) or found[0] == found[1]:
            raise BackboneError(
                f"the tokenizer gives the verdicts A and B as the tokens {', '.join(str(list(ids)) for ids in found)}; each must "
                "be one known token of its own: use another decoder"
            )
        return found[0][0], found[1][0]


@dataclass(eq=False)
class PairwiseModel:
    """P(A ≻ B) = softmax of the two letters' logits behind the rendered pair; NaN for a pair that holds no conversation.

    `folder` is a local folder, a GGUF file, a hub id or "smollm2". The decoder runs in `dtype`, its output layer in float32 and
    for the two letters behind the last token alone. Order and batch change verdicts by the decoder's rounding alone; `exact` runs
    each pair by itself, so that nothing does. `tokens` counts what the decoder has read so far (padding aside), `truncated` the
    pairs that were cut to fit `max_tokens`.
    Raises BackboneError for a folder that can't be read, lacks weights, or whose tokenizer can't render pairs.
    """

    name: str
    folder: str
    _: KW_ONLY
    label: str = "pairwise preference model"
    dtype: DType = "bfloat16"
    device: str = "auto"
    batch_tokens: int = 4096
    max_tokens: int | None = None
    exact: bool = False
    tokens: int = field(default=0, init=False)
    truncated: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        causal, use = transformers.AutoModelForCausalLM, "a pairwise preference model"
        model, tokenizer = load_headed(causal, self.folder, use=use, dtype=self.dtype)
        self._renderer = PairRenderer(tokenizer, max_tokens=longest_of(model.config, self.max_tokens))
        self._model = model.eval().requires_grad_(False).to(device_of(self.device))
        self._weight, self._bias = verdict_rows(self._model, self._renderer.verdict_ids)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what verdicts depend on: weights, config, tokenizer, type, the pairs' wording, length and batches."""
        digest = hashlib.sha256(fingerprint(self.folder, dtype=self.dtype).encode())
        digest.update(repr((INSTRUCTION, HEADINGS, QUESTION, SPEAKERS, self.longest, self.exact)).encode())
        return digest.hexdigest()[:16]

    @property
    def longest(self) -> int:
        """The most tokens that a pair keeps, its verdict among them."""
        return self._renderer.max_tokens

    @torch.inference_mode()
    def prefer(self, pairs: Sequence[tuple[Conversation, Conversation]]) -> Preferences:
        """P(a ≻ b) of each pair (a, b), shown both ways. Raises DataError where a and b answer different prompts."""
        rows: list[tuple[int, int]] = []  # order, pair
        texts: list[Rendered] = []
        truncated, faults = [False] * len(pairs), list[str | None]([None] * len(pairs))
        for i, (a, b) in enumerate(pairs):
            try:
                shown = self._renderer.render(a, b), self._renderer.render(b, a)
            except ConversationError as error:
                faults[i] = str(error)
                continue
            truncated[i] = shown[0].cut_tokens > 0
            rows += [(0, i), (1, i)]
            texts += [Rendered(one.ids, (), ()) for one in shown]
        self.truncated += sum(truncated)
        odds = np.full((2, len(pairs)), np.nan)
        for batch in pack(texts, batch_tokens=1 if self.exact else self.batch_tokens, share=False):
            entries = [group[0] for group in batch.groups]
            for entry, value in zip(entries, self._log_odds([e.rendered.prompt for e in entries]), strict=True):
                for row in entry.rows:
                    odds[rows[row]] = value
            self.tokens += batch.tokens
        return Preferences(expit(odds[0]), expit(-odds[1]), tuple(truncated), tuple(faults))

    def _log_odds(self, rows: Sequence[tuple[int, ...]]) -> list[float]:
        # log P(A) / P(B). Each pass has a head of its own, on a clone that shares the weights: threads don't meet in it.
        view = clone_shallowly(self._model)
        view.set_output_embeddings(VerdictHead(self._weight, self._bias, rows))
        logits = view(input_ids=pad_right(rows, self._weight.device), use_cache=False).logits
        return (logits[:, 0, 0] - logits[:, 0, 1]).tolist()


def has_words(folder: str) -> bool:
    """Whether a local folder's config.json names a causal language model, the form of a pairwise preference model."""
    return architecture_of(folder).endswith("ForCausalLM")


class VerdictHead(torch.nn.Module):
    """Stands in a decoder's output layer's place: states [b t d] → logits [b 1 2] of A and B behind the last token of each row.

    The decoder's own forward pass runs around it, so that what it does to logits (a scale, a soft cap) is done here too; a whole
    vocabulary's logits never come to be. `rows` are the batch's token ids without padding.
    """

    def __init__(
        self, weight: Float[torch.Tensor, "2 d"], bias: Float[torch.Tensor, "2"] | None, rows: Sequence[tuple[int, ...]]
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.rows = weight, bias, rows

    def forward(self, states: Float[torch.Tensor, "b t d"]) -> Float[torch.Tensor, "b 1 2"]:
        return torch.nn.functional.linear(last_states(states, self.rows)[:, None].float(), self.weight, self.bias)


def verdict_rows(model: Any, verdicts: tuple[int, int]) -> tuple[Float[torch.Tensor, "2 d"], Float[torch.Tensor, "2"] | None]:
    """The two rows of a model's output layer, weight and bias. Raises BackboneError when there is none, or it lacks them."""
    output = model.get_output_embeddings()
    if not isinstance(output, torch.nn.Linear) or max(verdicts) >= output.out_features:
        seen = f"{output.out_features} tokens" if isinstance(output, torch.nn.Linear) else "no linear layer"
        raise BackboneError(
            f"{type(model).__name__}: the output layer has {seen}, the verdicts A and B are tokens {verdicts}: name a causal "
            "decoder with its own tokenizer"
        )
    rows = list(verdicts)
    return output.weight.detach()[rows].float(), None if output.bias is None else output.bias.detach()[rows].float()


_SENTINELS = (("Hv5ArmormTurnOne", "Qx7ArmormVerdictOne"), ("Wm2ArmormTurnTwo", "Zk3ArmormVerdictTwo"))


def _context(turns: Sequence[Message]) -> str:
    return "\n\n".join(f"{SPEAKERS[m['role']]}:\n{written_out(m).strip()}" for m in turns)


def _shares(context: int, a: int, b: int, room: int) -> tuple[int, int, int]:
    """How many tokens context, A and B keep of their own, `room` or less together."""
    kept = min(context, max(room - a - b, room // 4))
    left = room - kept
    return kept, min(a, max(left - b, left // 2)), min(b, max(left - a, left // 2))


def _end(ids: tuple[int, ...], keep: int) -> tuple[int, ...]:
    return ids[len(ids) - keep :]
