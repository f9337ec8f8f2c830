"""Features by vLLM: its kernels and batches run the decoder, this package's pooling makes features of the states.

In: a decoder's name, its settings, the parts wanted.  Out: `VllmBackbone`, which `extract` takes in the place of a `Backbone`.
Cost: vLLM's start, some minutes; then a pass of the whole decoder over each conversation. Prompts that several answers share are
read with each of them, and no block is left out behind the last that is read.

vLLM and its transformers need an environment of their own. What it has computed is read by any other, which needs no vLLM.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from armorm.errors import ArmormError, BackboneError, MissingExtra
from armorm.features.backbone import DType, check_layers, check_positions, located, read_config
from armorm.features.extract import Pooled, Wanted
from armorm.features.loading import backbone_error, first_line
from armorm.features.spec import Part, layers_of
from armorm.rendering import Rendered
from armorm.sums import check_model

ARCHITECTURE = "ArmormFeatures"
"""What vLLM's registry calls the model that computes features."""
LAYERS = "armorm_layers"
"""The key of the decoder's config, as vLLM sees it, that names the layers."""
PROMPT, ANSWER, ANSWER_PARTS, PROMPT_PARTS, HEADER = "prompt_length", "answer_length", "answer_parts", "prompt_parts", "header"
"""Keys of `PoolingParams.extra_kwargs`: tokens of the prompt and of the answer, the parts wanted of each, the header's tokens."""
ROWS = 512
"""Conversations that vLLM is given at a time."""


@dataclass(frozen=True)
class VllmBackbone:
    """A decoder in vLLM's hands; `read` are the layers that it gives. `close` ends vLLM's process and frees its memory."""

    name: str
    layers: int
    width: int
    read: frozenset[str]
    llm: Any

    def check(self, parts: Iterable[Part]) -> None:
        """Raises BackboneError for a layer that this decoder hasn't got, or was not loaded to give."""
        parts = list(parts)
        check_layers(self.name, self.layers, parts)
        if missing := sorted({part.layer for part in parts} - self.read):
            raise BackboneError(
                f"{self.name}: vLLM was started without layer {', '.join(missing)}: load it again with these parts"
            )

    def stream(self, rendered: Sequence[Rendered], wanted: Wanted) -> Iterator[Pooled]:
        """Features of the rows, in order, some hundred at a time."""
        from vllm import PoolingParams

        names = {ANSWER_PARTS: [str(p) for p in wanted.response], PROMPT_PARTS: [str(p) for p in wanted.prompt]}
        n = len(wanted.response)
        for start in range(0, len(rendered), ROWS):
            rows = rendered[start : start + ROWS]
            asked = [{PROMPT: len(r.prompt), ANSWER: len(r.answer), HEADER: wanted.header, **names} for r in rows]
            outputs = self.llm.encode(
                [{"prompt_token_ids": list(row.ids)} for row in rows],
                [PoolingParams(task="classify", use_activation=False, extra_kwargs=extra) for extra in asked],
                pooling_task="classify",
                use_tqdm=False,
            )
            found = [self._whole(output.outputs.data.reshape(-1), n + len(wanted.prompt)) for output in outputs]
            parts = torch.stack(found).unflatten(1, (-1, self.width)).unbind(1)
            response = dict(zip(names[ANSWER_PARTS], parts[:n], strict=True))
            prompt = dict(zip(names[PROMPT_PARTS], parts[n:], strict=True))
            yield Pooled(tuple(range(start, start + len(rows))), response, prompt, sum(map(len, rows)))

    def close(self) -> None:
        """End it. What was streamed stays."""
        self.llm.llm_engine.engine_core.shutdown()

    def _whole(self, found: torch.Tensor, parts: int) -> torch.Tensor:
        # A request that could not be pooled is one NaN, which is told as such with its row.
        return found.float().cpu().expand(parts * self.width) if len(found) == 1 else found.float().cpu()


def load_on_vllm(name: str, parts: Iterable[Part], *, dtype: DType, max_tokens: int, revision: str | None = None) -> VllmBackbone:
    """Start vLLM on a decoder, for features of these parts of conversations of up to `max_tokens`.

    Raises MissingExtra without vLLM, BackboneError for a decoder that isn't there, that vLLM can't run, or whose inner blocks it
    can't give.
    """
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # results alone go to stdout
    try:
        from vllm import LLM
    except ImportError as missing:
        raise MissingExtra("`features.engine: vllm`", str(missing.name or "vllm"), "vllm") from missing
    folder, parts = located(name, dtype), list(parts)
    check_model(Path(folder))
    config = read_config(folder, {} if Path(folder).is_dir() else {"revision": revision}, backbone_error(name))
    check_positions(config, max_tokens)
    text = config.get_text_config()
    layers, read = int(text.num_hidden_layers), layers_of(parts)
    check_layers(name, layers, parts)
    try:
        llm = LLM(
            folder,
            runner="pooling",
            dtype=dtype,
            revision=revision,
            tokenizer_revision=revision,
            max_model_len=max_tokens,
            enforce_eager=True,  # long prefills gain nothing by graphs, which take minutes to make
            disable_log_stats=True,
            hf_overrides={"architectures": [ARCHITECTURE], LAYERS: list(read)},
        )
    except ArmormError:
        raise
    except Exception as error:  # vLLM raises what its processes did, by a name of its own
        raise BackboneError(
            f"{name}: vLLM can't run this decoder ({first_line(error)}; what it said stands above): leave `features.engine` out, "
            "so that this package's own engine reads it"
        ) from error
    return VllmBackbone(name, layers, int(text.hidden_size), frozenset(read), llm)


def fingerprint_on_vllm(fingerprint: str) -> str:
    """Of a decoder's own fingerprint, that of the same decoder in vLLM's hands.

    Its kernels round otherwise, so that what one engine has computed is never taken for the other's.
    """
    return hashlib.sha256(f"{fingerprint} vllm".encode()).hexdigest()[:16]
