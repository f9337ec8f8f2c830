"""The packed pass equals the plain one, sequence by sequence; decoders that can't be packed are found and read the padded way."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import transformers
from test_features_extract import ARCHITECTURES, CONVERSATIONS, GROUPED, close, features, reference

from armorm.features import attention
from armorm.features.attention import CannotPackError, Plan, _branch_by_branch, _in_blocks, attend
from armorm.features.backbone import Backbone, load_backbone
from armorm.features.forward import run_decoder
from armorm.features.fused import fused
from armorm.features.packed import packs, run_tree
from armorm.features.prefixes import plant
from armorm.features.spec import Part, Pooling

DRAW = random.Random(0)
START = tuple(DRAW.choices(range(3, 300), k=170))


def ids(n: int) -> tuple[int, ...]:
    return tuple(DRAW.choices(range(3, 300), k=n))


# Longer than a block of queries, behind starts of several lengths, one within another.
SEQUENCES = [
    ids(1),
    ids(300),
    START,
    (*START, *ids(3)),
    (*START[:20], *ids(150)),
    (*START[:20], *ids(1)),
    (*START[:129], *ids(129)),
]


def decoder_of(config, dtype=torch.float32) -> Backbone:
    config = type(config).from_dict(
        config.to_dict() | {"vocab_size": 320, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    )
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval().requires_grad_(False).to(dtype)
    return Backbone("random", model, None, config.num_hidden_layers, config.hidden_size, "")


@torch.inference_mode()
def alone(backbone, sequence, layer):
    states = run_decoder(backbone.model, {layer}, input_ids=torch.tensor([sequence]), use_cache=False)
    return states[layer][0].float()


@torch.inference_mode()
def together(backbone, layer, sequences=SEQUENCES):
    tree = plant(sequences)
    states = run_tree(tree, backbone, {layer})[layer].float()
    return [states[[i for piece in path for i in piece]] for path in tree.paths]


ALL = ARCHITECTURES | {
    "qwen3": transformers.Qwen3Config(**GROUPED),
    "phi3": transformers.Phi3Config(**GROUPED),
    "one head of keys": transformers.LlamaConfig(**GROUPED | {"num_key_value_heads": 1, "head_dim": 12}),
    "window of a block": transformers.MistralConfig(**GROUPED, sliding_window=140),
}


@pytest.mark.parametrize("name", ALL)
def test_long_and_nested_sequences_have_the_states_of_a_plain_pass(name):
    backbone = decoder_of(ALL[name])
    assert packs(backbone)
    for layer in ("2", "final"):
        for sequence, got in zip(SEQUENCES, together(backbone, layer), strict=True):
            want = alone(backbone, sequence, layer)
            assert (got - want).abs().max() <= 5e-5 * want.abs().max(), f"{len(sequence)} tokens at {layer}"


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3-sliding"])
def test_bfloat16_is_as_near_to_float32_as_a_plain_pass_is(name):
    exact, rounded = decoder_of(ALL[name]), decoder_of(ALL[name], torch.bfloat16)
    exact.model.load_state_dict({key: value.float() for key, value in rounded.model.state_dict().items()})
    assert packs(rounded)
    for sequence, got in zip(SEQUENCES, together(rounded, "final"), strict=True):
        true = alone(exact, sequence, "final")
        ours, plain = (got - true).norm(), (alone(rounded, sequence, "final") - true).norm()
        assert ours <= 1.5 * plain + 0.01 * true.norm(), len(sequence)


@pytest.mark.parametrize("window", [None, 1, 50, 200])
@pytest.mark.parametrize("way", [_in_blocks, _branch_by_branch])
def test_attention_by_the_book(way, window):
    tree = plant(SEQUENCES)
    t, plan = len(tree.ids), Plan(tree.branches, torch.device("cpu"))
    torch.manual_seed(0)
    query, key, value = (torch.randn(heads, t, 8, dtype=torch.float64) for heads in (6, 2, 2))
    got = way(plan, query, key, value, 0.3, window)
    for path in tree.paths:
        at = [i for piece in path for i in piece]
        q, k, v = query[:, at], key[:, at].repeat_interleave(3, dim=0), value[:, at].repeat_interleave(3, dim=0)
        ahead = torch.arange(len(at)) - torch.arange(len(at))[:, None]
        hidden = (ahead > 0) | (ahead <= -window) if window else ahead > 0
        want = (q @ k.transpose(1, 2) * 0.3).masked_fill(hidden, -torch.inf).softmax(dim=-1) @ v  # over keys
        torch.testing.assert_close(got[at].transpose(0, 1), want)


def varlen_by_the_book(q, k, v, query_ends, key_ends, most_queries, most_keys, *, scale, window_size, enable_gqa=False):
    """What torch's attention for several lengths computes on a GPU: causal from each sequence's end."""
    assert len(query_ends) == len(key_ends)
    assert [query_ends[-1], key_ends[-1]] == [len(q), len(k)]
    assert (most_queries, most_keys) == tuple(int(ends.diff().max()) for ends in (query_ends, key_ends))
    found = []
    for i in range(len(query_ends) - 1):
        one, keys, values = (
            x[ends[i] : ends[i + 1]].transpose(0, 1) for x, ends in ((q, query_ends), (k, key_ends), (v, key_ends))
        )
        if enable_gqa:
            keys, values = (x.repeat_interleave(len(one) // len(x), dim=0) for x in (keys, values))
        ahead = torch.arange(keys.shape[1]) - torch.arange(keys.shape[1] - one.shape[1], keys.shape[1])[:, None]
        hidden = (ahead > window_size[1]) | ((ahead < -window_size[0]) if window_size[0] >= 0 else False)
        scores = (one @ keys.transpose(1, 2) * scale).masked_fill(hidden, -torch.inf)
        found.append((scores.softmax(dim=-1) @ values).transpose(0, 1))  # over keys
    return torch.cat(found)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("most", [1, 400, 2**16])
@pytest.mark.parametrize("window", [None, 50])
def test_lengths_in_groups_are_the_row(most, window, grouped, monkeypatch):
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    copied = []

    def counted(q, k, v, *lengths, **how):
        copied.append((len(k), len(lengths[0]) - 1))
        return varlen_by_the_book(q, k, v, *lengths, **how)

    monkeypatch.setattr(varlen, "varlen_attn", counted)
    monkeypatch.setattr(attention, "KEYS", most)
    monkeypatch.setattr(attention, "_varlen_settings", lambda: frozenset({"enable_gqa"} if grouped else ()))
    tree = plant(SEQUENCES)
    plan = Plan(tree.branches, torch.device("cpu"))
    torch.manual_seed(0)
    query, key, value = (torch.randn(heads, len(tree.ids), 8) for heads in (6, 2, 2))
    got = attention._by_lengths(plan, query, key, value, 0.3, window)
    torch.testing.assert_close(got, _branch_by_branch(plan, query, key, value, 0.3, window))
    assert all(keys <= most or branches == 1 for keys, branches in copied)
    assert sum(branches for _, branches in copied) == len(tree.branches)
    calls = {1: range(len(tree.branches), len(tree.branches) + 1), 400: range(2, len(tree.branches)), 2**16: range(1, 2)}
    assert len(copied) in calls[most]


def test_a_row_that_shares_nothing_is_its_own_keys(monkeypatch):
    monkeypatch.setattr(attention, "KEYS", 1)
    (group,) = Plan(plant(SEQUENCES, share=False).branches, torch.device("cpu")).groups
    assert group.keys is None
    assert group.query_ends.tolist() == group.key_ends.tolist()
    assert group.most_queries == group.most_keys == 300


# -- decoders that can't be packed -------------------------------------------------------------------------------------


UNPACKED = {
    "softened scores": transformers.Gemma2Config(**GROUPED, query_pre_attn_scalar=8, attn_logit_softcapping=2.0),
    "biases by distance": transformers.BloomConfig(hidden_size=32, n_layer=4, n_head=4, initializer_range=0.3),
}


@pytest.mark.parametrize("name", UNPACKED)
def test_a_decoder_that_wants_more_is_read_the_padded_way(name, random_folder):
    backbone = load_backbone(str(random_folder(UNPACKED[name])), dtype="float32", device="cpu")
    assert not packs(backbone)
    part = Part("final", Pooling.LAST)
    got = features(backbone, response=[part], prompt=[])
    for i, conversation in enumerate(CONVERSATIONS):
        close(got.response["final:last"][i], reference(backbone, conversation, part, of_prompt=False))


def test_a_window_that_attention_does_not_hear_of_is_not_packed(monkeypatch):
    backbone = decoder_of(ARCHITECTURES["llama"])
    backbone.model.config.layer_types = ["full_attention", "sliding_attention"] * 2
    assert not packs(backbone)


def test_chunked_attention_is_not_packed():
    backbone = decoder_of(ARCHITECTURES["llama"])
    backbone.model.config.layer_types = ["full_attention", "chunked_attention"] * 2
    assert not packs(backbone)


@pytest.mark.parametrize("more", [{"softcap": 2.0}, {"s_aux": torch.zeros(2)}, {"dropout": 0.1}, {"is_causal": False}])
def test_what_attention_does_not_compute_is_refused(more):
    module = torch.nn.Module()
    module.__dict__["plan"] = Plan(plant([ids(4)]).branches, torch.device("cpu"))
    x = torch.ones(1, 2, 4, 8)
    assert attend(module, x, x, x, position_ids=None, use_cache=False)[0].shape == (1, 4, 2, 8)
    with pytest.raises(CannotPackError):
        attend(module, x, x, x, **more)


def test_without_a_plan_nothing_is_computed():
    x = torch.ones(1, 2, 4, 8)
    with pytest.raises(CannotPackError):
        attend(torch.nn.Module(), x, x, x)


# -- fused parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_gated_unit_is_the_module_it_stands_for(dtype, bias):
    mlp = decoder_of(transformers.LlamaConfig(**GROUPED, mlp_bias=bias), dtype).model.layers[0].mlp
    unit = fused(mlp)
    assert unit is not None
    x = torch.randn(1, 37, 32, dtype=dtype)
    want = mlp.float()(x.float())
    mlp.to(dtype)
    np.testing.assert_allclose(unit(x).float(), want, atol=float(want.abs().max()) * (1e-6 if dtype == torch.float32 else 0.02))


def test_only_the_same_formula_with_plain_frozen_weights_is_fused():
    llama = decoder_of(ARCHITECTURES["llama"]).model.layers[0]
    assert fused(llama.self_attn) is None
    assert fused(decoder_of(ARCHITECTURES["gemma3-sliding"]).model.layers[0].mlp) is None  # another activation
    llama.mlp.up_proj.register_forward_hook(lambda *_: None)
    assert fused(llama.mlp) is None
    own = decoder_of(ARCHITECTURES["qwen2"]).model.layers[0].mlp
    own.up_proj.forward = lambda x: x * 2
    assert fused(own) is None
    trained = decoder_of(ARCHITECTURES["qwen2"]).model.layers[0].mlp
    assert fused(trained) is not None
    assert fused(trained.requires_grad_(True)) is None
