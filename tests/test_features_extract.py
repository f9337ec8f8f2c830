"""Features against an explicit forward pass, one conversation at a time; and the laws of batching, sharing and cutting."""

from __future__ import annotations

import copy
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers

from armorm.errors import BackboneError, ConversationError, RecipeError
from armorm.features.backbone import load_backbone
from armorm.features.extract import Features, extract
from armorm.features.forward import run_decoder
from armorm.features.packing import fill, pack, split_answers
from armorm.features.prefixes import LEAST, plant
from armorm.features.spec import FeatureSpec, Part, Pooling, parts_of
from armorm.rendering import Renderer

RESPONSE = FeatureSpec.parse("1:last+1:closing+1:mean+3:last+3:mean+final:last+final:closing+final:mean").parts
PROMPT = FeatureSpec.parse("1:last+2:mean+3:turn+final:last+final:mean+final:turn").parts

END_OF_TURN = 2  # <|im_end|>

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8}
TURNS = ["sliding_attention", "full_attention"] * 2
ARCHITECTURES = {
    "llama": transformers.LlamaConfig(**GROUPED),
    "qwen2": transformers.Qwen2Config(**GROUPED),
    "gpt2": transformers.GPT2Config(n_embd=32, n_layer=4, n_head=4, n_positions=512, initializer_range=0.3),
    "gpt_neox": transformers.GPTNeoXConfig(**SMALL),
    "mistral-sliding": transformers.MistralConfig(**GROUPED, sliding_window=6),
    "gemma3-sliding": transformers.Gemma3TextConfig(**GROUPED, query_pre_attn_scalar=8, sliding_window=6, layer_types=TURNS),
}


def talk(*contents):
    return tuple({"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents))


CONVERSATIONS = [
    talk("How are you?", "Fine, thank you."),
    talk("How are you?", "No."),
    talk("2 + 2 is", "4"),
    talk("def f(x)", "return x " * 5, "more", "def f(x): return x"),
    talk("How are you?", "I am an assistant, and so I say hello hello hello hello."),
    talk("2 + 2 is", "5 or so"),
    talk("How are you?", "No."),
]


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def decoder(request, random_folder):
    return load_backbone(str(random_folder(ARCHITECTURES[request.param])), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def llama(random_folder):
    return load_backbone(str(random_folder(ARCHITECTURES["llama"])), dtype="float32", device="cpu")


def features(backbone, conversations=CONVERSATIONS, *, max_tokens=512, response=RESPONSE, prompt=PROMPT, **options):
    renderer = Renderer(backbone.tokenizer, max_tokens=max_tokens)
    return extract(conversations, backbone, renderer, response=response, prompt=prompt, **options)


@torch.inference_mode()
def reference(backbone, conversation, part: Part, *, of_prompt: bool):
    """The feature by the book: transformers' own hidden states of this conversation alone."""
    rendered = Renderer(backbone.tokenizer, max_tokens=512).render(conversation)
    out = backbone.model(input_ids=torch.tensor([rendered.ids]), output_hidden_states=True, use_cache=False)
    states = (out.last_hidden_state if part.layer == "final" else out.hidden_states[int(part.layer)])[0].numpy()
    start, stop = (0, len(rendered.prompt)) if of_prompt else (len(rendered.prompt), len(rendered) - len(rendered.closing))
    if part.pooling is Pooling.MEAN:
        return states[start:stop].mean(axis=0)
    if part.pooling is Pooling.CLOSING:
        return states[stop]
    if part.pooling is Pooling.TURN:
        return states[max(i for i, t in enumerate(rendered.prompt) if t == END_OF_TURN)]
    return states[stop - 1 if of_prompt else len(rendered) - 1]


def close(got: np.ndarray, wanted: np.ndarray, what: str = "") -> None:
    """Equal within 1e-5 of the features' own scale: float32 rounds a state in proportion to its largest values."""
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * max(1.0, float(np.abs(wanted).max())), err_msg=what)


def same(one: Features, two: Features) -> None:
    for a, b in ((one.response, two.response), (one.prompt, two.prompt)):
        assert a.keys() == b.keys()
        for part in a:
            close(a[part], b[part], part)
    np.testing.assert_array_equal(one.response_tokens, two.response_tokens)
    np.testing.assert_array_equal(one.prompt_tokens, two.prompt_tokens)
    np.testing.assert_array_equal(one.truncated, two.truncated)


# -- reference ---------------------------------------------------------------------------------------------------------


def test_every_layer_and_pooling_equals_a_plain_forward_pass(decoder):
    parts = [Part(layer, pooling) for layer in ("1", "2", "3", "final") for pooling in Pooling]
    response = [p for p in parts if p.pooling is not Pooling.TURN]
    prompt = [p for p in parts if p.pooling is not Pooling.CLOSING]
    got = features(decoder, response=response, prompt=prompt)
    for i, conversation in enumerate(CONVERSATIONS):
        for part in response:
            want = reference(decoder, conversation, part, of_prompt=False)
            close(got.response[str(part)][i], want, f"{part} of row {i}")
        for part in prompt:
            want = reference(decoder, conversation, part, of_prompt=True)
            close(got.prompt[str(part)][i], want, f"prompt {part} of row {i}")


def test_the_turn_of_a_template_without_header_is_the_prompts_last_token(random_folder, new_tokenizer):
    tokenizer = new_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    backbone = load_backbone(str(random_folder(ARCHITECTURES["llama"], tokenizer)), dtype="float32", device="cpu")
    assert not Renderer(tokenizer, max_tokens=512).header_ids
    got = features(backbone)
    np.testing.assert_array_equal(got.prompt["final:turn"], got.prompt["final:last"])


def test_a_prompt_that_was_cut_keeps_its_turn(llama):
    long, short = talk("hello " * 60, "yes"), CONVERSATIONS[0]
    got = features(llama, [long, short], max_tokens=30)
    assert got.truncated.tolist() == [True, False]
    rendered = Renderer(llama.tokenizer, max_tokens=30).render(long)
    with torch.inference_mode():
        states = llama.model(input_ids=torch.tensor([rendered.prompt])).last_hidden_state[0].numpy()
    close(got.prompt["final:turn"][0], states[rendered.prompt.index(END_OF_TURN)])


def test_a_closing_that_the_template_lacks_is_the_last_token(random_folder, new_tokenizer):
    tokenizer = new_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ '<|im_start|>' + m['content'] }}{% endfor %}"
    backbone = load_backbone(str(random_folder(ARCHITECTURES["llama"], tokenizer)), dtype="float32", device="cpu")
    got = features(backbone)
    np.testing.assert_array_equal(got.response["final:closing"], got.response["final:last"])


@pytest.mark.parametrize("name", ["mistral-sliding", "gemma3-sliding"])
def test_the_windows_above_are_smaller_than_the_texts(name, random_folder):
    wide = copy.deepcopy(ARCHITECTURES[name])
    wide.sliding_window = 512
    narrow, unbounded = (
        features(load_backbone(str(random_folder(config)), dtype="float32", device="cpu"), CONVERSATIONS[:1])
        for config in (ARCHITECTURES[name], wide)
    )
    assert np.abs(narrow.response["final:last"] - unbounded.response["final:last"]).max() > 1e-3


# -- laws --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_tokens", [1, 40, 97, 100_000])
def test_the_batch_size_changes_nothing(batch_tokens, decoder):
    same(features(decoder, batch_tokens=batch_tokens), features(decoder))


def test_sharing_a_prompt_changes_nothing(decoder):
    assert decoder.shares_prefix
    shared = features(decoder)
    one_by_one = [features(decoder, [c]) for c in CONVERSATIONS]
    for i, alone in enumerate(one_by_one):
        for part, values in alone.response.items():
            close(shared.response[part][i], values[0], part)
        for part, values in alone.prompt.items():
            close(shared.prompt[part][i], values[0], part)


def test_order_and_duplicates_change_nothing(llama):
    forth = features(llama)
    back = features(llama, CONVERSATIONS[::-1])
    twice = features(llama, CONVERSATIONS * 2)
    n = len(CONVERSATIONS)
    for part, values in forth.response.items():
        close(back.response[part][::-1], values)
        np.testing.assert_array_equal(twice.response[part][:n], twice.response[part][n:])
        close(twice.response[part][:n], values)
    assert twice.computed_tokens == forth.computed_tokens


def test_many_answers_of_all_lengths_share_one_prompt(llama):
    many = [talk("hello " * 10, "word " * n + "end") for n in (1, 40, 3, 17, 0, 28)] + [CONVERSATIONS[2]]
    together = features(llama, many, batch_tokens=120)
    for i, conversation in enumerate(many):
        alone = features(llama, [conversation])
        for part in together.response:
            close(together.response[part][i], alone.response[part][0])


def test_a_prompts_feature_does_not_know_the_answer(llama):
    answers = [features(llama, [talk("a question", a)]) for a in ("yes", "no, never " * 8)]
    for part in answers[0].prompt:
        close(answers[0].prompt[part], answers[1].prompt[part])
        assert not np.allclose(answers[0].response["final:mean"], answers[1].response["final:mean"], atol=1e-2)


def test_recurrent_layers_do_not_share_prompts(llama):
    recurrent = copy.deepcopy(llama)
    recurrent.model.config.layer_types = ["linear_attention"] + ["full_attention"] * 3
    assert not recurrent.shares_prefix
    plain = features(recurrent)
    same(plain, features(llama))
    assert plain.computed_tokens > features(llama).computed_tokens


def test_a_truncated_conversation_is_marked_and_bounded(llama):
    long = talk("word " * 80, "yes")
    got = features(llama, [long, CONVERSATIONS[2]], max_tokens=40)
    assert got.truncated.tolist() == [True, False]
    assert int(got.prompt_tokens[0] + got.response_tokens[0]) + 2 == 40  # the closing has two tokens


# -- counts ------------------------------------------------------------------------------------------------------------


def test_computed_tokens_count_shared_prompts_and_duplicates_once(llama):
    renderer = Renderer(llama.tokenizer, max_tokens=512)
    rendered = {renderer.render(c) for c in CONVERSATIONS}
    want = sum(len(p) for p in {r.prompt for r in rendered}) + sum(len(r.answer) + len(r.closing) for r in rendered)
    told: list[int] = []
    got = features(llama, on_tokens=told.append, batch_tokens=60)
    assert got.computed_tokens == want == sum(told)
    assert len(told) > 1


def test_token_counts_are_those_of_the_segments(llama):
    renderer = Renderer(llama.tokenizer, max_tokens=512)
    rendered = [renderer.render(c) for c in CONVERSATIONS]
    got = features(llama)
    assert got.response_tokens.tolist() == [len(r.answer) for r in rendered]
    assert got.prompt_tokens.tolist() == [len(r.prompt) for r in rendered]
    assert len(got) == len(CONVERSATIONS)


def test_batches_hold_every_row_once_and_keep_to_the_budget(llama):
    renderer = Renderer(llama.tokenizer, max_tokens=512)
    rendered = [renderer.render(c) for c in CONVERSATIONS * 3] + [renderer.render(talk("x", "word " * n)) for n in range(1, 30)]
    for share in (True, False):
        batches = pack(rendered, batch_tokens=200, share=share)
        entries = [e for b in batches for g in b.groups for e in g]
        assert sorted(row for e in entries for row in e.rows) == list(range(len(rendered)))
        assert all(rendered[row] == e.rendered for e in entries for row in e.rows)
        assert any(b.shared for b in batches) == share
        for b in batches:
            if b.shared:
                pieces = split_answers(b, batch_tokens=200)
                assert sorted(e.rows for piece in pieces for _, e in piece) == sorted(e.rows for g in b.groups for e in g)
            else:
                longest = max(len(g[0].rendered) for g in b.groups)
                assert longest * len(b.groups) <= 200 or len(b.groups) == 1


@pytest.mark.parametrize("share", [True, False])
def test_packed_batches_hold_every_row_once_keep_to_the_budget_and_answers_to_a_prompt_together(share, llama):
    renderer = Renderer(llama.tokenizer, max_tokens=512)
    rendered = [renderer.render(c) for c in CONVERSATIONS * 3] + [renderer.render(talk("x", "word " * n)) for n in range(1, 30)]
    rendered += [renderer.render(talk("word " * 150, "yes"))]
    batches = fill(rendered, batch_tokens=120, share=share)
    assert sorted(row for b in batches for e in b for row in e.rows) == list(range(len(rendered)))
    assert all(rendered[row] == e.rendered for b in batches for e in b for row in e.rows)
    sizes = [len(plant([e.rendered.ids for e in b], share=share).ids) for b in batches]
    assert max(sizes) > 120  # a conversation longer than the budget is by itself
    assert all(size <= 120 + (LEAST if share else 0) * len(b) or len(b) == 1 for size, b in zip(sizes, batches, strict=True))
    assert sum(sizes) / len(sizes) > 60
    asked = renderer.render(CONVERSATIONS[0]).prompt
    assert sum(any(e.rendered.prompt == asked for e in b) for b in batches) == 1


def test_no_conversations_give_empty_features(llama):
    got = features(llama, [])
    assert len(got) == got.computed_tokens == 0
    assert got.response["final:last"].shape == (0, 32)


# -- cutting -----------------------------------------------------------------------------------------------------------


def test_cutting_drops_blocks_and_leaves_lower_layers_alone(decoder):
    backbone = copy.deepcopy(decoder)
    parts = FeatureSpec.parse("1:last+2:mean+2:closing").parts
    prompt = FeatureSpec.parse("2:last").parts
    before = features(backbone, response=parts, prompt=prompt)
    size = sum(p.numel() for p in backbone.model.parameters())
    backbone.cut([*parts, *prompt])
    after = features(backbone, response=parts, prompt=prompt)
    for part in before.response:
        np.testing.assert_array_equal(before.response[part], after.response[part])
    np.testing.assert_array_equal(before.prompt["2:last"], after.prompt["2:last"])
    assert sum(p.numel() for p in backbone.model.parameters()) < size
    assert backbone.model.config.num_hidden_layers == 2
    assert backbone.layers == 4


def test_the_final_state_needs_all_blocks(llama):
    backbone = copy.deepcopy(llama)
    backbone.cut(FeatureSpec.parse("1:last+final:last").parts)
    backbone.cut([])
    same(features(backbone), features(llama))


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_layer_that_is_not_there_is_named(llama):
    with pytest.raises(BackboneError, match="has 4 blocks: no layer 4, 17; use 1 to 3, or 'final'"):
        features(llama, response=FeatureSpec.parse("3:last+17:mean+4:last").parts)
    with pytest.raises(BackboneError, match="no layer 9"):
        llama.cut(FeatureSpec.parse("9:last").parts)


def test_features_that_are_not_finite_are_refused(llama):
    broken = copy.deepcopy(llama)
    word = broken.tokenizer.encode("5", add_special_tokens=False)[0]
    broken.model.embed_tokens.weight.data[word] = float("inf")
    with pytest.raises(BackboneError, match=r"features of rows \[5\] .* are not finite; use `backbone.dtype"):
        features(broken)


def test_a_row_that_is_no_conversation_is_refused(llama):
    with pytest.raises(ConversationError, match="no-answer"):
        features(llama, [CONVERSATIONS[0], CONVERSATIONS[0][:1]])


def test_nothing_is_hung_on_the_shared_decoder_not_even_during_a_pass(decoder):
    seen = []
    hooks = sum(len(m._forward_hooks) for m in decoder.model.modules())  # transformers may have left some of its own
    before = {name: dict(vars(m)) for name, m in decoder.model.named_modules()}
    features(
        decoder, batch_tokens=60, on_tokens=lambda _: seen.append(sum(len(m._forward_hooks) for m in decoder.model.modules()))
    )
    assert len(seen) > 1
    assert set(seen) == {hooks}
    for name, module in decoder.model.named_modules():
        assert vars(module).keys() == before[name].keys(), name
        assert all(vars(module)[key] is value for key, value in before[name].items()), name


def test_threads_on_one_decoder_get_the_serial_features(decoder):
    draw = random.Random(0)
    words = ("fine", "return x", "hello", "4", "how are you?")
    sets = [
        [talk(f"{draw.choice(words)} {i % 3}", " ".join(draw.choices(words, k=draw.randint(1, 30)))) for i in range(20)]
        for _ in range(8)
    ]
    serial = [features(decoder, one, batch_tokens=256) for one in sets]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda one: features(decoder, one, batch_tokens=256), sets))
    for alone, threaded in zip(serial, together, strict=True):
        for side in ("response", "prompt"):
            for part, values in getattr(alone, side).items():
                np.testing.assert_array_equal(values, getattr(threaded, side)[part])


# -- specs -------------------------------------------------------------------------------------------------------------


def test_a_spec_reads_back_as_it_was_written():
    assert str(FeatureSpec.parse(" 018:mean+final:last ")) == "18:mean+final:last"
    specs = [FeatureSpec.parse(t) for t in ("2:mean+final:last", "2:mean", "1:closing")]
    assert [str(p) for p in parts_of(specs)] == ["1:closing", "2:mean", "final:last"]


@pytest.mark.parametrize("text", ["", "final", "0:last", "-1:last", "final:first", "x:last", "2:mean+", "1.5:mean"])
def test_what_is_no_spec_is_refused_with_the_form(text):
    with pytest.raises(RecipeError, match="expected LAYER:POOLING"):
        FeatureSpec.parse(text)


def test_a_token_that_the_decoder_does_not_know_is_named(tiny):
    known = tiny.model.get_input_embeddings().weight.shape[0]
    with pytest.raises(BackboneError, match=f"the tokenizer gives token {known}, the decoder knows {known}: copy both again"):
        run_decoder(tiny.model, {"final"}, input_ids=torch.tensor([[1, known]]), use_cache=False)
