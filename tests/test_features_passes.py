"""Passes by kind of decoder: each row's features are those of its conversation alone, and the decoder stays as it was."""

from __future__ import annotations

import random
from types import MethodType

import pytest
import torch
import transformers
from accelerate.hooks import ModelHook, add_hook_to_module
from test_features_extract import GROUPED, SMALL
from test_packed import decoder_of

from armorm.errors import BackboneError
from armorm.features import extract
from armorm.features.extract import stream_features
from armorm.features.forward import Reading, reading_of
from armorm.features.packed import packs
from armorm.features.spec import FeatureSpec
from armorm.rendering import Rendered

DRAW = random.Random(1)
RESPONSE = FeatureSpec.parse("1:last+1:closing+final:last+final:mean").parts
PROMPT = FeatureSpec.parse("1:last+final:mean").parts
TWO = GROUPED | {"num_hidden_layers": 2}
LONG = TWO | {"max_position_embeddings": 256}
ORIGINAL = 64
TURNING = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": ORIGINAL,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0, 3.0, 4.0, 5.0],
}


def ids(n: int) -> tuple[int, ...]:
    return tuple(DRAW.choices(range(3, 300), k=n))


SHARED, OTHER = ids(40), ids(17)
ROWS = [
    Rendered(SHARED, ids(20), (2,)),
    Rendered(SHARED, ids(5), (2,)),
    Rendered(OTHER, ids(9), (2,)),
    Rendered(SHARED, ids(60), (2,)),
    Rendered(OTHER, ids(3), ()),
    Rendered(ids(50), ids(70), (2,)),
]


def features(backbone, rows, **options):
    """Every row's features side by side, [n f]."""
    found = {}
    for pooled in stream_features(rows, backbone, response=RESPONSE, prompt=PROMPT, **options):
        values = torch.cat([*pooled.response.values(), *pooled.prompt.values()], dim=1)
        found |= dict(zip(pooled.rows, values, strict=True))
    assert sorted(found) == list(range(len(rows)))
    return torch.stack([found[i] for i in range(len(rows))])


def agree(backbone, rows, **options):
    """Rows read together are what each is alone."""
    alone = torch.cat([features(backbone, [row]) for row in rows])
    torch.testing.assert_close(features(backbone, rows, **options), alone, rtol=0, atol=2e-5 * float(alone.abs().max()))


# -- the decoder stays as it was ---------------------------------------------------------------------------------------


def test_a_long_text_leaves_the_decoders_frequencies_alone():
    model = (backbone := decoder_of(transformers.LlamaConfig(**LONG, rope_parameters=TURNING))).model
    before = model.rotary_emb.inv_freq.clone()
    features(backbone, [ROWS[5]])
    assert torch.equal(model.rotary_emb.inv_freq, before)


MODES = {
    "packed": transformers.LlamaConfig(**TWO, attention_dropout=0.5),
    "padded": transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=4, hidden_dropout=0.5, initializer_range=0.3),
}


@pytest.mark.parametrize("name", MODES)
def test_a_decoder_in_training_is_read_without_dropout_and_left_in_training(name):
    backbone = decoder_of(MODES[name])
    still = features(backbone, ROWS)
    backbone.model.train()
    for trained in (backbone, decoder_of(MODES[name])):  # proved before, and not yet
        trained.model.train()
        assert torch.equal(features(trained, ROWS), still)
        assert all(module.training for module in trained.model.modules())
        assert packs(trained) == (name == "packed")


def test_a_forward_that_a_module_was_given_sees_the_pass(monkeypatch):
    backbone = decoder_of(MODES["packed"])
    want = features(backbone, ROWS)
    backbone.model.forward = MethodType(type(backbone.model).forward, backbone.model)
    assert torch.equal(features(backbone, ROWS), want)


@pytest.mark.parametrize("name", MODES)
def test_a_dispatched_decoder_is_refused(name):
    backbone = decoder_of(MODES[name])
    add_hook_to_module(backbone.model, ModelHook())
    with pytest.raises(BackboneError, match=r"has a forward of another library's .*: load the decoder on one device"):
        features(backbone, ROWS)


# -- rows keep apart ---------------------------------------------------------------------------------------------------


def test_only_the_row_that_is_not_finite_is_named():
    backbone = decoder_of(transformers.LlamaConfig(**TWO))
    faulty = 1  # the first of the row, and longer than those behind it
    backbone.model.embed_tokens.weight[faulty] = torch.nan
    rows = [Rendered((first, *ids(n)), (9, 10), (2,)) for first, n in ((9, 20), (faulty, 40), (12, 20), (13, 30), (14, 5))]
    last = FeatureSpec.parse("final:last").parts
    with pytest.raises(BackboneError, match=r"features of rows \[1\] "):
        list(stream_features(rows, backbone, response=last, prompt=last))


def test_blocks_may_give_a_list():
    config = transformers.OpenAIGPTConfig(n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3)
    agree(decoder_of(config), ROWS)


# -- what is proved ----------------------------------------------------------------------------------------------------

KINDS = {  # with what is proved: together, shared
    "bloom": (transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3), True, True),
    "no cache": (transformers.OpenAIGPTConfig(n_embd=32, n_layer=2, n_head=4, n_positions=128), True, False),
    "a state": (transformers.RwkvConfig(hidden_size=32, num_hidden_layers=2, context_length=128), True, False),
    "own positions": (transformers.RobertaConfig(**SMALL | {"num_hidden_layers": 2}, is_decoder=True), True, False),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_decoder_is_read_in_the_ways_that_give_the_states_of_each_sequence_alone(name, monkeypatch):
    config, together, shared = KINDS[name]
    backbone = decoder_of(config)
    assert reading_of(backbone) == Reading(together, shared)
    monkeypatch.setattr(extract, "packs", lambda _: False)
    agree(backbone, ROWS)


NOT_CAUSAL = {
    "bert": transformers.BertConfig(**SMALL | {"num_hidden_layers": 2}),
    "gemma3": transformers.Gemma3TextConfig(**TWO, query_pre_attn_scalar=8, use_bidirectional_attention=True),
}


@pytest.mark.parametrize("name", NOT_CAUSAL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_decoder_that_is_not_causal_is_refused(name, dtype):
    with pytest.raises(BackboneError, match=r"is not causal here, .*: name a causal decoder"):
        features(decoder_of(NOT_CAUSAL[name], dtype), ROWS)


def test_a_decoder_that_padding_disturbs_is_read_one_sequence_at_a_time(monkeypatch):
    backbone = decoder_of(MODES["padded"])
    plain = type(backbone.model.word_embeddings).forward

    def disturbed(self, ids):  # a batch that holds padding is another text
        return plain(self, ids).roll(int((ids == 0).any()), dims=-1)

    monkeypatch.setattr(torch.nn.Embedding, "forward", disturbed)
    assert reading_of(backbone) == Reading(together=False, shared=False)
    agree(backbone, ROWS)


def test_padded_ways_hold_in_bfloat16():
    for name in MODES:
        assert reading_of(decoder_of(MODES[name], torch.bfloat16)) == Reading(together=True, shared=True)


def test_states_that_are_not_one_for_each_token_are_refused():
    config = transformers.ReformerConfig(
        hidden_size=32,
        num_attention_heads=4,
        attention_head_size=8,
        attn_layers=["local", "local"],
        feed_forward_size=64,
        is_decoder=True,
        axial_pos_embds=False,
        max_position_embeddings=128,
        local_attn_chunk_length=16,
    )
    with pytest.raises(BackboneError, match=r"gives states of shape \(1, 48, 32\) for token ids of shape \(1, 46\)"):
        features(decoder_of(config), [ROWS[1]])


def test_a_decoder_whose_blocks_give_several_states_is_read_at_its_end(monkeypatch):
    config = transformers.Gemma3nTextConfig(
        **TWO | {"intermediate_size": [64, 64], "activation_sparsity_pattern": [0.0, 0.0]},
        num_kv_shared_layers=0,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=16,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=320,
        laurel_rank=4,
    )
    backbone = decoder_of(config)
    with pytest.raises(BackboneError, match="gives states of shape"):
        features(backbone, ROWS)
    last = FeatureSpec.parse("final:last").parts
    monkeypatch.setitem(globals(), "RESPONSE", last)
    monkeypatch.setitem(globals(), "PROMPT", last)
    agree(backbone, ROWS)


# -- lengths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODES)
def test_an_answer_of_no_tokens_without_a_closing_has_the_prompts_last_state(name):
    backbone = decoder_of(MODES[name])
    for rows in ([*ROWS, Rendered(SHARED, (), ())], [Rendered(SHARED, (), ()), Rendered(SHARED, (), (2,))]):
        agree(backbone, rows)
    (pooled,) = stream_features([Rendered(SHARED, (), ())] * 2, backbone, response=RESPONSE, prompt=PROMPT)
    assert torch.equal(pooled.response["1:last"], pooled.prompt["1:last"])


LONGROPE = {
    "packed": transformers.Phi3Config(**LONG | {"original_max_position_embeddings": ORIGINAL}, rope_parameters=TURNING),
    "padded": transformers.Gemma2Config(
        **LONG, query_pre_attn_scalar=8, attn_logit_softcapping=2.0, sliding_window=16, rope_parameters=TURNING
    ),
    "packed, its own": transformers.PhimoeConfig(
        **{key: value for key, value in LONG.items() if key != "head_dim"},
        num_local_experts=2,
        original_max_position_embeddings=ORIGINAL,
        rope_parameters=TURNING | {"short_mscale": 1.0, "long_mscale": 1.5},
    ),
}


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", LONGROPE)
def test_frequencies_are_those_of_each_conversations_own_length(name, share):
    backbone = decoder_of(LONGROPE[name])
    assert packs(backbone) == name.startswith("packed")
    exact = [
        Rendered(SHARED, ids(n), (2,)) for n in (ORIGINAL - 41, ORIGINAL - 40)
    ]  # the longest of the short, the shortest long
    assert [len(r) for r in exact] == [ORIGINAL, ORIGINAL + 1]
    agree(backbone, [*ROWS, *exact, *ROWS[:2]], share=share)
