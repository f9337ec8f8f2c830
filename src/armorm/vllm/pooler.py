"""The pooler: states of a batch of conversations → scores, and for our own routes the heads' columns.

In: states [t, d · layers], each request's token ids and `PoolingParams`.
Out: for each request [1], its score, or `Columns` in one row.
Cost: a pooling and the heads on the batch; where a request doesn't say where its answer stands, a search for its header.

Where the answer stands is told by `extra_kwargs` (`prompt_length`, `answer_length`), which no text can reach; vLLM's own routes
don't know it, and there the answer header is looked for as `RewardModel.forward` does. A row that can't be told is NaN, since an
error here would end the whole engine. An empty answer has the score that `RewardModel.forward` gives it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from vllm.v1.pool.metadata import PoolingMetadata

from armorm.errors import ArmormError
from armorm.features.extract import pool
from armorm.features.forward import prompts_and_answers
from armorm.features.nuisances import STYLE as COUNTED
from armorm.features.vllm_decoder import StatesPooler
from armorm.model.marks import Marks
from armorm.model.reward_model import RewardModel
from armorm.model.segments import find_segments
from armorm.rendering import Ids, Rendered
from armorm.scoring.engine import join_pooled
from armorm.scoring.steer import Heads
from armorm.vllm.columns import ANSWER, PROMPT, STYLE, WANTED, Columns

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Found:
    # One request: where it starts among the batch's states, its segments, the counts of its answer's style.
    request: int
    start: int
    rendered: Rendered
    empty: bool = False
    style: Sequence[float] | None = None


class RewardPooler(StatesPooler):
    """Heads on the states of `layers`."""

    def __init__(self, heads: RewardModel, layers: Sequence[str]) -> None:
        super().__init__(layers)
        self.heads, self.columns = heads, Columns.of(heads)
        self._marks = Marks(heads.config, heads.tokenizer)

    @torch.inference_mode()
    def forward(self, hidden_states: Float[Tensor, "t w"], pooling_metadata: PoolingMetadata) -> list[Tensor]:
        rows = pooling_metadata.get_prompt_token_ids_cpu()
        asked = [params.extra_kwargs or {} for params in pooling_metadata.pooling_params]
        sizes = pooling_metadata.get_pooling_cursor().num_scheduled_tokens_cpu.tolist()
        starts = [0, *accumulate(sizes)]
        found = [
            one
            for i, (row, size) in enumerate(zip(rows, sizes, strict=True))
            if len(row) == size and (one := self._find(i, starts[i], tuple(row.tolist()), asked[i]))
        ]
        outputs = [self._nothing(extra, hidden_states) for extra in asked]
        if found:
            self._score(hidden_states, found, asked, outputs)
        return outputs

    def _score(
        self,
        hidden_states: Float[Tensor, "t w"],
        found: Sequence[_Found],
        asked: Sequence[Mapping[str, Any]],
        outputs: list[Tensor],
    ) -> None:
        heads, feature = self._heads_on(hidden_states, found)
        empty = [at for at, one in enumerate(found) if one.empty]
        heads, steered = self.heads.judged(heads, empty)
        scores, known = steered.score.clone(), self.heads.config.empty_score
        if empty and known is not None:
            scores[empty] = known
        columns: Tensor | None = None
        for at, one in enumerate(found):
            if asked[one.request].get(WANTED):
                columns = self.columns.join(heads, feature) if columns is None else columns
                outputs[one.request] = columns[at]
            else:
                outputs[one.request] = scores[at : at + 1]

    def _heads_on(self, hidden_states: Float[Tensor, "t w"], found: Sequence[_Found]) -> tuple[Heads, Float[Tensor, "b f"]]:
        model = self.heads
        states = dict(zip(self.layers, hidden_states.chunk(len(self.layers), dim=1), strict=True))
        paths = [(range(one.start, one.start + len(one.rendered)),) for one in found]
        prompts, answers = prompts_and_answers(states, paths, [one.rendered for one in found])
        prompt = pool(prompts, model.prompt_spec.parts, header=len(model.config.header_ids))
        response = join_pooled(pool(answers, model.response_spec.parts), model.response_spec)
        tokens = torch.tensor(answers.text, device=response.device).float()
        style = model._style_of([one.rendered for one in found], tokens)
        for i, one in enumerate(found):
            if style is not None and one.style is not None:
                style[i] = style.new_tensor(one.style)
        return model.heads(response, join_pooled(prompt, model.prompt_spec), tokens, style), response

    # -- where the answer stands -------------------------------------------------------------------------------------------------

    def _find(self, request: int, start: int, row: Ids, asked: Mapping[str, Any]) -> _Found | None:
        if PROMPT in asked:
            return self._told(request, start, row, asked)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ids = torch.tensor([row])
                at = find_segments(ids, self.heads.config, tokenizer=self.heads.tokenizer, mask=torch.ones_like(ids))
        except ArmormError as error:
            logger.debug("a request has no score: %s", error)
            return None
        (rendered,) = at.rows
        # An answer that would have to be read anew from its text, or a lacking BOS: the states are of other tokens.
        return None if at.unclear or rendered.ids != row else _Found(request, start, rendered, bool(at.empty))

    def _told(self, request: int, start: int, row: Ids, asked: Mapping[str, Any]) -> _Found | None:
        opens, size, style = asked[PROMPT], asked.get(ANSWER), asked.get(STYLE)
        if not isinstance(opens, int) or not isinstance(size, int) or not 0 < opens <= opens + size <= len(row) or size < 0:
            return None
        if style is not None and (not isinstance(style, list) or len(style) != len(COUNTED)):
            return None
        answer = row[opens : opens + size]
        # Our own routes, which want columns, have refused empty answers before.
        empty = not asked.get(WANTED) and self._marks.says_nothing(answer)
        return _Found(request, start, Rendered(row[:opens], answer, row[opens + size :]), empty, style)

    def _nothing(self, asked: Mapping[str, Any], like: Tensor) -> Float[Tensor, " _"]:
        width = self.columns.width if asked.get(WANTED) else 1
        return torch.full((width,), torch.nan, dtype=torch.float32, device=like.device)
