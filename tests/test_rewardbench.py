"""RewardBench's pipeline class on a model of ours: what it does to its inputs, and the class itself where a wheel is at hand."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tiny_decoder import TEMPLATE
from tokenizers.processors import TemplateProcessing

WHEEL = os.environ.get("ARMORM_REWARDBENCH", "")
TALKS = [
    [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine, thank you."}],
    [{"role": "user", "content": "2 + 2 is"}, {"role": "assistant", "content": "4"}],
    [
        {"role": "user", "content": "how are you? def f(x): return x"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "hello, hello"},
        {"role": "assistant", "content": "are you fine? 4 is f(x)"},
    ],
]


@pytest.fixture(scope="module")
def model(assembled, parts):
    """The tiny model, whose template writes a BOS and whose tokenizer puts another one in front."""
    made = assembled(*parts)
    tokenizer = made.tokenizer
    tokenizer.bos_token = "<|pad|>"
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer._tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
    made.__dict__.pop("renderer", None)
    return made


class Pipeline:
    """What RewardBench 0.1.4 does: padded batches, and no attention to the first of two BOS tokens."""

    def __init__(self, _task, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer

    def __call__(self, samples, **how):
        inputs = self.tokenizer(samples, truncation=True, max_length=how["max_length"], padding=True, return_tensors="pt")
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        for row, start in enumerate(mask.argmax(dim=1).tolist()):
            if ids[row, start] == ids[row, start + 1] == self.tokenizer.bos_token_id:
                mask[row, start] = 0
        with torch.no_grad():
            return self.model(**inputs).logits


def of_wheel():
    place = Path(WHEEL) / "rewardbench" / "models" / "pipeline.py"
    spec = importlib.util.spec_from_file_location("rewardbench_pipeline", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RewardBenchPipeline


@pytest.fixture(params=["its effect", "the class"])
def pipeline(request, monkeypatch):
    if request.param == "its effect":
        return Pipeline
    if not WHEEL:
        pytest.skip("ARMORM_REWARDBENCH names no unpacked wheel of rewardbench 0.1.4")
    monkeypatch.setattr(transformers.BatchEncoding, "to", lambda self, _device: self)  # it asks for CUDA by name
    return of_wheel()


@pytest.mark.parametrize("side", ["left", "right"])
def test_its_logits_are_our_scores(pipeline, model, side):
    tokenizer = model.tokenizer
    texts = [tokenizer.apply_chat_template(talk, tokenize=False) for talk in TALKS]
    assert tokenizer(texts[0])["input_ids"][:2] == [tokenizer.bos_token_id] * 2
    tokenizer.padding_side = side
    found = pipeline("text-classification", model, tokenizer)(texts, max_length=512, batch_size=4)
    assert found.shape == (len(TALKS), 1)
    expected = [score.score for score in model.score(TALKS)]
    np.testing.assert_allclose(found[:, 0].numpy(), expected, atol=2e-6)
    assert len({round(score, 5) for score in expected}) == len(TALKS)


def test_an_answer_that_it_cuts_has_another_score(model):
    text = model.tokenizer.apply_chat_template(TALKS[2], tokenize=False)
    whole, cut = (
        Pipeline("", model, model.tokenizer)([text], max_length=n) for n in (512, len(model.tokenizer(text)["input_ids"]) - 4)
    )
    assert abs(whole.item() - cut.item()) > 1e-4
