"""Small random reward models whose decoders vLLM's CPU kernels can run (heads of 32 numbers), in both layouts.

In: a folder.  Out: the folder filled.  Cost: a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from conftest import random_parts
from fixtures.make_released import write as write_released_tensors
from tiny_decoder import tiny_tokenizer

from armorm.features.backbone import load_backbone
from armorm.features.spec import FeatureSpec
from armorm.fit.method import Fitted
from armorm.model.layouts.own import assemble
from armorm.objectives import Objective, Objectives
from armorm.rendering import Renderer

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
OBJECTIVES = Objectives(
    [Objective(name=n, min=a, max=b) for n, a, b in (("helpful", 0, 4), ("safe", 0, 1), ("verbosity", 1, 10))]
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim "
    "+ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def write_decoder(folder: Path, config: transformers.PreTrainedConfig, *, dtype: torch.dtype = torch.float32) -> Path:
    """A random decoder with its tokenizer."""
    tokenizer = tiny_tokenizer()
    config = type(config).from_dict({**config.to_dict(), "vocab_size": len(tokenizer)})
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_own(
    folder: Path,
    config: transformers.PreTrainedConfig,
    *,
    response: str = "2:mean+final:last",
    prompt: str = "3:last+1:mean",
    computed: tuple[str, ...] = ("response-tokens",),
    dtype: str = "float32",
    **changes: Any,
) -> Path:
    """A model in this package's own layout."""
    decoder = write_decoder(folder / "decoder", config, dtype=getattr(torch, dtype))
    backbone = load_backbone(str(decoder), dtype=dtype, device="cpu")
    features = [FeatureSpec.parse(text) for text in (response, prompt)]
    parts = random_parts(OBJECTIVES, *(64 * len(spec.parts) for spec in features), computed)
    renderer = Renderer(backbone.tokenizer, max_tokens=256)
    model = assemble(backbone, renderer, Fitted(parts[0], response, *parts[1:]), prompt=features[1])
    for name, value in changes.items():
        setattr(model.config, name, value)
    model.save_pretrained(folder / "model")
    return folder / "model"


def write_released(folder: Path) -> Path:
    """A model in the released layout, with a tokenizer whose template has that layout's header."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]})
    tokenizer.chat_template = LLAMA3
    config = transformers.LlamaConfig(**SHAPE, vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=2)
    write_released_tensors(folder, config, k=19, width=12)
    tokenizer.save_pretrained(folder)
    return folder
