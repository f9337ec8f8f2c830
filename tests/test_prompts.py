"""Prompts of other chat templates: taken apart into the messages that they were, in time that follows their length."""

from __future__ import annotations

import time

import pytest

from armorm.prompts import FAMILIES, read_prompt

WRITTEN = {
    "ChatML (Qwen, SmolLM2, …)": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi <b>\nthere<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n",
    "Llama 3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user"
    "<|end_header_id|>\n\nHi <b>\nthere<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "Gemma": "<bos><start_of_turn>system\nBe kind.<end_of_turn>\n<start_of_turn>user\nHi <b>\nthere<end_of_turn>\n"
    "<start_of_turn>model\n",
    "Phi, Zephyr, Granite": "<|system|>\nBe kind.</s>\n<|user|>\nHi <b>\nthere</s>\n<|assistant|>\n",
    "Mistral, Llama 2": "<s>[INST] Before [/INST] Yes.</s>[INST] Hi <b>\nthere [/INST]",
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_prompt_in_a_template_is_the_messages_that_it_was_made_of(family):
    first = [{"role": "system", "content": "Be kind."}]
    if family.name.startswith("Mistral"):
        first = [{"role": "user", "content": "Before"}, {"role": "assistant", "content": "Yes."}]
    found = read_prompt(WRITTEN[family.name])
    assert found is not None
    assert found.family is family
    assert list(found.turns) == [*first, {"role": "user", "content": "Hi <b>\nthere"}]
    assert not found.begun
    begun = read_prompt(WRITTEN[family.name] + "already begun")
    assert begun is not None
    assert begun.begun
    assert begun.turns[-1]["content"].endswith("already begun")
    again = read_prompt(" \n" + WRITTEN[family.name])
    assert again is not None
    assert again.turns == found.turns


@pytest.mark.parametrize("text", ["", "Hi", "What does <|im_start|>user\nmean?", "a [INST] b", "<|im_start|>assistant\n", "</s>"])
def test_any_other_text_is_none(text: str):
    assert read_prompt(text) is None


@pytest.mark.parametrize("piece", ["<|im_start|>user\n", "[INST] ", "<|user|>\n", "<s>", "\n", " ", "</s>", "<|im_start|>a"])
def test_taking_prompts_apart_takes_time_in_proportion(piece: str):
    start = time.perf_counter()
    for text in (piece * 100_000, piece * 100_000 + "x<|im_start|>user\nHi", f"<s>{piece * 100_000}x[INST] Hi"):
        read_prompt(text)
    assert time.perf_counter() - start < 20  # seconds; hours where white space is looked at from every letter


def test_chatml_keeps_white_space_and_llamas_dates_are_no_words_of_the_systems():
    found = read_prompt("<|im_start|>user\n  Hi \n<|im_end|>\n<|im_start|>assistant\n")
    assert found is not None
    assert found.headed
    assert found.turns == ({"role": "user", "content": "  Hi \n"},)
    dates = "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    asked = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    for system in ("", "Be kind."):
        found = read_prompt(f"<|begin_of_text|>{dates}{system}{asked}")
        first = [{"role": "system", "content": system}] if system else []
        assert found is not None
        assert list(found.turns) == [*first, {"role": "user", "content": "Hi"}]
