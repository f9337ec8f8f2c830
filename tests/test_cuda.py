"""On a machine with CUDA: what it computes is what the processor computes, within rounding. Passed over elsewhere."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from small_run import write_recipe

from armorm import RewardModel
from armorm.features.backbone import load_backbone
from armorm.features.extract import extract
from armorm.features.spec import FeatureSpec
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.rendering import Renderer
from armorm.run.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

WORDS = ["fine", "thank", "you,", "hello", "how", "are", "you?", "2", "+", "2", "is", "4;", "def", "f(x):", "return", "x"]
CLOSE = {"float32": 1e-4, "bfloat16": 0.06}
"""Largest difference of a feature, as a share of the largest feature: what other orders of adding up make of it."""


def conversation(i: int, answer: int) -> list[dict[str, str]]:
    prompt = " ".join(WORDS[(i + j) % len(WORDS)] for j in range(3 + 7 * i))
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": " ".join(WORDS[: answer % len(WORDS) + 1] * 3)}]


CONVERSATIONS = [conversation(i, i + a) for i in range(12) for a in range(3)]


@pytest.fixture(scope="module")
def grouped(random_folder) -> Path:
    """A random Llama with heads of 64, grouped keys and values."""
    config = transformers.LlamaConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    return random_folder(config)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("batch_tokens", [64, 4096])
def test_features_are_those_of_the_processor(grouped, dtype, batch_tokens):
    response, prompt = FeatureSpec.parse("2:mean+final:last").parts, FeatureSpec.parse("3:last+final:turn").parts
    found = []
    for device in ("cpu", "cuda"):
        backbone = load_backbone(str(grouped), dtype=dtype, device=device)
        renderer = Renderer(backbone.tokenizer, max_tokens=256)
        options = {"response": response, "prompt": prompt, "batch_tokens": batch_tokens}
        found.append(extract(CONVERSATIONS, backbone, renderer, **options))
    ours, theirs = found
    for side in ("response", "prompt"):
        for part, values in getattr(ours, side).items():
            other = getattr(theirs, side)[part]
            assert np.abs(values - other).max() <= CLOSE[dtype] * np.abs(values).max(), (side, part)


def test_a_run_is_that_of_the_processor(rows, tiny_folder, tmp_path):
    runs = {}
    for device in ("cpu", "cuda"):
        recipe = load_recipe(write_recipe(rows, tiny_folder, backbone={"device": device}, gate={"device": device}))
        runs[device] = train(recipe, tmp_path / device, reporter=Reporter(quiet=True))
    for device, run in runs.items():
        model = RewardModel.from_pretrained(run.folder / "model")
        runs[device] = np.array([model.score(c).score for c in CONVERSATIONS])
    spread = runs["cpu"].std()
    assert np.abs(runs["cpu"] - runs["cuda"]).max() < 0.02 * spread


def test_a_model_scores_there_as_here_also_from_threads(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    here = RewardModel.from_pretrained(tmp_path / "model")
    there = RewardModel.from_pretrained(tmp_path / "model").to("cuda")
    expected = np.array([here.score(c).score for c in CONVERSATIONS])
    found = {}

    def score(thread: int) -> None:
        found[thread] = np.array([there.score(c).score for c in CONVERSATIONS])

    threads = [threading.Thread(target=score, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for scores in found.values():
        assert np.abs(scores - expected).max() < 1e-4
