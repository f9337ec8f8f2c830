"""The reward model as vLLM runs it: a decoder of vLLM's own, without its language head, and our pooler behind it.

In: vLLM's config of a model folder in either layout.  Out: states of the layers that the heads read, side by side
[t, d · layers]; the pooler makes scores of them.
Cost: the decoder's.

Where vLLM can't read inside a decoder, it serves models whose heads read its last states alone, as the released layout's do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsCrossEncoding
from vllm.model_executor.models.interfaces_base import VllmModelForPooling, default_pooling_type

from armorm.features.spec import layers_of
from armorm.features.vllm_decoder import DECODER, DecoderStates
from armorm.model.reward_model import RewardModel
from armorm.vllm.heads import load_heads
from armorm.vllm.pooler import RewardPooler

REMEDY = "serve this model with `armorm serve`, or train one with `features.response` and `features.prompt` at final"


@default_pooling_type(seq_pooling_type="MEAN")  # all states of a text in one pass: no chunks of it, no cached prefixes
class ServedRewardModel(DecoderStates, SupportsCrossEncoding, VllmModelForPooling):
    """Registered for the architectures of both layouts; see `armorm.vllm.plugin`."""

    is_pooling_model = True
    supports_score_template: ClassVar[bool] = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        model = vllm_config.model_config
        heads = load_heads(model.model, model.revision)
        super().__init__(vllm_config, prefix, layers_read(heads), REMEDY)
        self.pooler = RewardPooler(heads.to(next(self.decoder.parameters()).device), self.layers)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """The decoder's tensors; the heads' are there already, and files kept beside the weights are none of ours."""
        ours = ((f"{self.inside}.{name.removeprefix('model.')}", tensor) for name, tensor in weights if name.startswith("model."))
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
    return layers_of(part for spec in (heads.response_spec, heads.prompt_spec) for part in spec.parts)
