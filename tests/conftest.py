"""Shared fixtures: a tiny random decoder with a chat template, in a folder as transformers writes it. No network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from armorm.conversation import Renderer
from armorm.features.backbone import Backbone, load_backbone

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
CORPUS = ["user assistant system hello how are you? fine, thank you. 2 + 2 is 4; def f(x): return x"] * 4


def tiny_tokenizer() -> transformers.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    fast.chat_template = TEMPLATE
    return fast


@pytest.fixture(scope="session")
def new_tokenizer() -> Callable[[], transformers.PreTrainedTokenizerFast]:
    """Makes a fresh tokenizer with the chat template above, for tests that change theirs."""
    return tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama: 4 blocks, width 32, in float32, with tokenizer and chat template."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    transformers.LlamaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a folder with a random decoder of any architecture: 4 blocks, width 32, the same seed every time."""

    def make(config: transformers.PreTrainedConfig, tokenizer: transformers.PreTrainedTokenizerFast | None = None) -> Path:
        tokenizer = tokenizer or tiny_tokenizer()
        config = type(config).from_dict(config.to_dict())
        config.vocab_size = len(tokenizer)
        config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
        if not hasattr(config, "n_embd"):
            config.hidden_size, config.intermediate_size = 32, 64
            config.num_hidden_layers = config.num_attention_heads = 4
            if getattr(config, "layer_types", None):
                config.layer_types = config.layer_types[:4]
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(config.model_type)
        transformers.AutoModel.from_config(type(config).from_dict(config.to_dict())).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def tiny(tiny_folder: Path) -> Backbone:
    return load_backbone(str(tiny_folder), dtype="float32", device="cpu")


@pytest.fixture
def renderer(tiny: Backbone) -> Renderer:
    return Renderer(tiny.tokenizer, max_tokens=512)
