"""The reward model as vLLM runs it: a decoder of vLLM's own, without its language head, and our pooler behind it.

In: vLLM's config of a model folder in either layout.  Out: states of the layers that the heads read, side by side
[t, d · layers]; the pooler makes scores of them.
Cost: the decoder's pass, and one copy of the states where more than one layer is read.

Blocks inside the decoder are read by vLLM's interface for EAGLE-3, whose "auxiliary hidden states" are the residual stream behind
block n. A decoder without it can be served where the heads read its last states alone, as the released layout does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from vllm.config import VllmConfig
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.interfaces import SupportsCrossEncoding, supports_eagle3
from vllm.model_executor.models.interfaces_base import VllmModelForPooling, default_pooling_type
from vllm.model_executor.models.utils import StageMissingLayer, init_vllm_registered_model, maybe_prefix, no_init_weights

from armorm.errors import BackboneError
from armorm.features.spec import FINAL
from armorm.model.reward_model import RewardModel
from armorm.vllm.heads import load_heads
from armorm.vllm.pooler import RewardPooler

DECODER = "decoder"


@default_pooling_type(seq_pooling_type="MEAN")  # all states of a text in one pass: no chunks of it, no cached prefixes
class ServedRewardModel(nn.Module, SupportsCrossEncoding, VllmModelForPooling):
    """Registered for the architectures of both layouts; see `armorm.vllm.plugin`."""

    is_pooling_model = True
    supports_score_template: ClassVar[bool] = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        model = vllm_config.model_config
        _check_whole(vllm_config)
        heads = load_heads(model.model, model.revision)
        self.layers = layers_read(heads)
        config = model.hf_config.get_text_config()
        causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
        if causal is None:
            raise BackboneError(f"{model.model}: {config.model_type!r} is no causal decoder that vLLM could run")
        self._inside = causal.base_model_prefix
        with no_init_weights(self, lambda head: StageMissingLayer("output", head), targets=(LogitsProcessor, ParallelLMHead)):
            self.decoder = init_vllm_registered_model(
                vllm_config, prefix=maybe_prefix(prefix, DECODER), hf_config=config, architectures=[causal.__name__]
            )
        self._read_blocks(model.model)
        self.pooler = RewardPooler(heads.to(next(self.decoder.parameters()).device), self.layers)

    def _read_blocks(self, name: str) -> None:
        blocks = tuple(int(layer) for layer in self.layers if layer != FINAL)
        if not blocks:
            return
        if not supports_eagle3(self.decoder):
            raise BackboneError(
                f"{name}: the heads read the decoder behind its blocks {', '.join(map(str, blocks))}, and vLLM gives only the "
                f"last states of {type(self.decoder).__name__}: serve this model with `armorm serve`, or train one with "
                "`features.response` and `features.prompt` at final"
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

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """The decoder's tensors; the heads' are there already, and files kept beside the weights are none of ours."""
        ours = (
            (f"{self._inside}.{name.removeprefix('model.')}", tensor) for name, tensor in weights if name.startswith("model.")
        )
        loaded = self.decoder.load_weights(ours)
        heads = {name for name, _ in self.named_parameters() if not name.startswith(f"{DECODER}.")}
        return {f"{DECODER}.{name}" for name in loaded} | heads

    @classmethod
    def get_score_template(cls, query: str, document: str) -> str | None:  # noqa: ARG003 - vLLM's signature
        """What `/score` asks where the server was given no template; without one it would join the bare texts."""
        raise ValueError(
            "a question and its answer need the model's chat template: start the server with the chat template that "
            "`python -m armorm.vllm.score_template MODEL` writes, or with VLLM_PLUGINS=armorm in its environment"
        )

    @classmethod
    def post_process_tokens(cls, prompt: Any) -> None:
        """Nothing: the template has written them all."""


def layers_read(heads: RewardModel) -> tuple[str, ...]:
    """The layers that a model's heads read, in the order of the decoder."""
    layers = {part.layer for spec in (heads.response_spec, heads.prompt_spec) for part in spec.parts}
    return tuple(sorted(layers, key=lambda layer: (layer == FINAL, 0 if layer == FINAL else int(layer))))


def _check_whole(vllm_config: VllmConfig) -> None:
    if vllm_config.scheduler_config.enable_chunked_prefill or vllm_config.cache_config.enable_prefix_caching:
        raise BackboneError(
            "the heads read prompt and answer in one pass: leave chunked prefill and prefix caching off (vLLM's own choice for "
            "this model)"
        )
