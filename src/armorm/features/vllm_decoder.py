"""A decoder of vLLM's own, without its language head, that gives the states of chosen layers side by side.

In: vLLM's config of a model, the layers.  Out: `DecoderStates`, whose forward gives states [t, d · layers]: what the models that
vLLM runs for this package are made of.  Cost: the decoder's pass, and one copy of the states where more than one layer is read.

Blocks inside the decoder are read by vLLM's interface for EAGLE-3, whose "auxiliary hidden states" are the residual stream behind
block n. Of a decoder without it, only the last states can be read.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from vllm.config import VllmConfig
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.pooler.abstract import Pooler
from vllm.model_executor.layers.pooler.common import PoolingParamsUpdate
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.interfaces import supports_eagle3
from vllm.model_executor.models.utils import StageMissingLayer, init_vllm_registered_model, maybe_prefix, no_init_weights

from armorm.errors import BackboneError
from armorm.features.spec import FINAL

DECODER = "decoder"


class DecoderStates(nn.Module):
    """`layers` as `layers_of` gives them; `remedy` says what to do where vLLM can't give one of them.

    `inside` is where the decoder's blocks stand in vLLM's class with its head. Raises BackboneError for what is no decoder that
    vLLM could run so, and for a config with chunked prefill or cached prefixes.
    """

    def __init__(self, vllm_config: VllmConfig, prefix: str, layers: Sequence[str], remedy: str) -> None:
        super().__init__()
        model = vllm_config.model_config
        _check_whole(vllm_config)
        self.layers = tuple(layers)
        config = model.hf_config.get_text_config()
        causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
        if causal is None:
            raise BackboneError(f"{model.model}: {config.model_type!r} is no causal decoder that vLLM could run")
        self.inside = str(causal.base_model_prefix)
        with no_init_weights(self, lambda head: StageMissingLayer("output", head), targets=(LogitsProcessor, ParallelLMHead)):
            self.decoder = init_vllm_registered_model(
                vllm_config, prefix=maybe_prefix(prefix, DECODER), hf_config=config, architectures=[causal.__name__]
            )
        self._read_blocks(model.model, remedy)

    def _read_blocks(self, name: str, remedy: str) -> None:
        blocks = tuple(int(layer) for layer in self.layers if layer != FINAL)
        if not blocks:
            return
        if not supports_eagle3(self.decoder):
            raise BackboneError(
                f"{name}: the decoder is read behind its blocks {', '.join(map(str, blocks))}, and vLLM gives only the last "
                f"states of {type(self.decoder).__name__}: {remedy}"
            )
        self.decoder.set_aux_hidden_state_layers(blocks)

    def embed_input_ids(self, input_ids: Int[Tensor, " t"]) -> Float[Tensor, "t d"]:
        return self.decoder.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: Int[Tensor, " t"] | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Float[Tensor, "t w"]:
        output = self.decoder(input_ids, positions, intermediate_tensors, inputs_embeds)
        final, blocks = output if isinstance(output, tuple) else (output, [])
        states = [*blocks, final] if FINAL in self.layers else blocks
        return states[0] if len(states) == 1 else torch.cat(states, dim=1)


class StatesPooler(Pooler):
    """Makes a vector of each request of the states of `layers`. The task is "classify", as which vLLM lets any vector through."""

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__()
        self.layers = tuple(layers)

    def get_supported_tasks(self) -> Set[Any]:
        return {"classify"}

    def get_pooling_updates(self, task: Any) -> PoolingParamsUpdate:  # noqa: ARG002 - vLLM's signature
        return PoolingParamsUpdate(requires_token_ids=True)


def _check_whole(vllm_config: VllmConfig) -> None:
    if vllm_config.scheduler_config.enable_chunked_prefill or vllm_config.cache_config.enable_prefix_caching:
        raise BackboneError(
            "prompt and answer are read in one pass: leave chunked prefill and prefix caching off (vLLM's own choice for this "
            "model)"
        )
