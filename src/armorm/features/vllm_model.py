"""What vLLM runs where it computes features: a decoder, and a pooler that gives the parts that each request asks for.

In: vLLM's config of a decoder's folder, in which `vllm_engine` has named the layers; requests that tell their segments.
Out: for each request its parts side by side [1, d · parts], in float32.
Cost: the decoder's pass; a pooling for each batch.

An error in a pooler ends the engine for everybody, so a request that can't be pooled gets NaN, which `extract` refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces_base import VllmModelForPooling, default_pooling_type
from vllm.v1.pool.metadata import PoolingMetadata

from armorm.errors import BackboneError
from armorm.features.extract import pool
from armorm.features.forward import Stretch
from armorm.features.spec import FeatureSpec
from armorm.features.vllm_decoder import DECODER, DecoderStates, StatesPooler
from armorm.features.vllm_engine import ANSWER, ANSWER_PARTS, HEADER, LAYERS, PROMPT, PROMPT_PARTS

OWN_ENGINE = "leave `features.engine` out, so that this package's own engine reads the decoder"


@default_pooling_type(seq_pooling_type="MEAN")  # all states of a text in one pass: no chunks of it, no cached prefixes
class FeatureModel(DecoderStates, VllmModelForPooling):
    """Registered as `vllm_engine.ARCHITECTURE`; see `armorm.vllm.plugin`."""

    is_pooling_model = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config, prefix, getattr(vllm_config.model_config.hf_config, LAYERS), OWN_ENGINE)
        self.pooler = FeaturePooler(self.layers)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """The decoder's tensors, whether the folder holds it with a head or without; heads are passed over.

        Raises BackboneError where one is lacking, which vLLM alone would leave as it was in memory.
        """
        own = {name for name, _ in self.decoder.get_submodule(self.inside).named_children()}
        bare = ((name.removeprefix(f"{self.inside}."), tensor) for name, tensor in weights)
        ours = ((f"{self.inside}.{name}", tensor) for name, tensor in bare if name.partition(".")[0] in own)
        loaded = {f"{DECODER}.{name}" for name in self.decoder.load_weights(ours)}
        if lacking := sorted({name for name, _ in self.named_parameters()} - loaded):
            raise BackboneError(f"vLLM finds no weights for {', '.join(lacking[:3])} ({len(lacking)} in all): {OWN_ENGINE}")
        return loaded


class FeaturePooler(StatesPooler):
    """Parts of the states of `layers`."""

    @torch.inference_mode()
    def forward(self, hidden_states: Float[Tensor, "t w"], pooling_metadata: PoolingMetadata) -> list[Tensor]:
        asked = [params.extra_kwargs or {} for params in pooling_metadata.pooling_params]
        sizes = pooling_metadata.get_pooling_cursor().num_scheduled_tokens_cpu.tolist()
        starts = [0, *accumulate(sizes)]
        outputs = [torch.full((1,), torch.nan, device=hidden_states.device) for _ in asked]
        alike: dict[Any, list[int]] = {}
        for i, (extra, size) in enumerate(zip(asked, sizes, strict=True)):
            if extra and 0 < extra[PROMPT] <= extra[PROMPT] + extra[ANSWER] <= size:  # vLLM tries a pooler with nothing asked
                alike.setdefault((*extra[ANSWER_PARTS], None, *extra[PROMPT_PARTS], extra[HEADER]), []).append(i)
        for rows in alike.values():
            found = self._pooled(hidden_states, [(starts[i], sizes[i], asked[i]) for i in rows])
            for i, row in zip(rows, found, strict=True):
                outputs[i] = row
        return outputs

    def _pooled(self, hidden_states: Float[Tensor, "t w"], rows: Sequence[tuple[int, int, Any]]) -> Float[Tensor, "b v"]:
        # Of requests that ask for the same parts.
        states = dict(zip(self.layers, hidden_states.chunk(len(self.layers), dim=1), strict=True))
        paths = [(range(start, start + size),) for start, size, _ in rows]
        opens, said, wholes = [e[PROMPT] for *_, e in rows], [e[ANSWER] for *_, e in rows], [size for _, size, _ in rows]
        extra = rows[0][2]
        prompts = pool(Stretch(states, paths, [0] * len(rows), opens, opens), _parts(extra[PROMPT_PARTS]), header=extra[HEADER])
        answers = pool(Stretch(states, paths, opens, said, wholes), _parts(extra[ANSWER_PARTS]))
        return torch.cat([*answers.values(), *prompts.values()], dim=1)


def _parts(texts: Sequence[str]) -> list[Any]:
    return [part for text in texts for part in FeatureSpec.parse(text).parts]
