"""Model folders that are damaged or hostile: whatever a file of them says, only an error of ours comes out, and soon."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fixtures.make_released import FOLDER
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig

from armorm.errors import ArmormError, BackboneError, CheckpointError
from armorm.features import template_trial
from armorm.features.backbone import architecture_of, fingerprint, load_backbone, load_tokenizer
from armorm.model.folder import local
from armorm.model.reward_model import RewardModel
from armorm.recipe import BackboneSettings
from armorm.rivals.judge.local import LocalModel
from armorm.rivals.pairwise import PairwiseModel
from armorm.rivals.sequence_head import SequenceHead
from armorm.tuning.decoder import Decoder

TALK = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine thank you"}]
WRONG = (None, "x", -1, 0, 3.5, 2**40, 10**9, [], ["x"], {}, {"a": []}, True, float("nan"))
"""Values of every kind; few fields take more than two of them."""


def spoilt(folder: Path, place: Path) -> Path:
    """A copy of a folder that is to be spoilt: no list says how its files were written."""
    return Path(shutil.copytree(folder, place, ignore=shutil.ignore_patterns("SHA256SUMS")))


@pytest.fixture(scope="session")
def own_model(tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "model"
    tiny_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def headed(new_tokenizer, tmp_path_factory) -> dict[str, Path]:
    """A decoder with one logit, and one with words."""
    tokenizer, folders = new_tokenizer(), {}
    for name, kind in (("score", AutoModelForSequenceClassification), ("words", AutoModelForCausalLM)):
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_labels=1,
        )
        config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
        torch.manual_seed(0)
        folders[name] = tmp_path_factory.mktemp(name)
        kind.from_config(config).save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


def use_model(folder: Path) -> None:
    model = RewardModel.from_pretrained(folder)
    if model.tokenizer is not None:
        model.score(TALK)


def use_backbone(folder: Path) -> None:
    load_backbone(str(folder), dtype="float32", device="cpu")


def use_head(folder: Path) -> None:
    SequenceHead("h", str(folder), dtype="float32", device="cpu").score([TALK])


def use_pairwise(folder: Path) -> None:
    PairwiseModel("p", str(folder), dtype="float32", device="cpu").prefer([(TALK, TALK)])


def use_judge(folder: Path) -> None:
    LocalModel(str(folder), dtype="float32", device="cpu", max_tokens=2).complete([[{"role": "user", "content": "hi"}]])


def use_tuning(folder: Path) -> None:
    decoder = Decoder(BackboneSettings(model=str(folder), dtype="float32", device="cpu"), "words")
    _ = decoder.tokenizer
    decoder.load("float32")


USES: dict[str, Callable[[Path], None]] = {
    "backbone": use_backbone,
    "head": use_head,
    "pairwise": use_pairwise,
    "judge": use_judge,
    "tuning": use_tuning,
}


def change(folder: Path, file: str, **facts: object) -> None:
    place = folder / file
    place.write_text(json.dumps((json.loads(place.read_text()) if place.exists() else {}) | facts))


def only_ours(use: Callable[[Path], None], folder: Path) -> ArmormError | None:
    """The error of ours that using a folder ends in; None where it is used as it is. Everything else fails the test."""
    try:
        use(folder)
    except ArmormError as error:
        return error
    return None


# -- config.json -------------------------------------------------------------------------------------------------------------

WHOLE = ["", "[]", "null", "7", '"x"', "{", "{}", "[" * 100_000, '{"a":' * 50_000, "\0", "\xff", '{"model_type": NaN}', " " * 100]


def test_config_json_of_any_kind(own_model, tmp_path):
    for i, text in enumerate(WHOLE):
        folder = spoilt(own_model, tmp_path / str(i))
        (folder / "config.json").write_bytes(text.encode("latin-1"))
        error = only_ours(use_model, folder)
        assert isinstance(error, CheckpointError), text[:20]
        assert str(folder) in str(error)
        error = only_ours(use_backbone, folder)
        assert isinstance(error, BackboneError), text[:20]
        assert str(folder) in str(error)


OWN_FIELDS = [
    *("objectives", "computed", "response_feature", "prompt_feature", "backbone_config", "backbone_layers", "backbone_name"),
    *("gate_hidden", "gating_temperature", "gate_scale", "probe_bias", "max_tokens", "rendering", "empty_score", "header_ids"),
    *(
        "closing_ids",
        "question_ids",
        "empty_ids",
        "profile",
        "measured",
        "armorm_format",
        "model_type",
        "dtype",
        "architectures",
        "num_labels",
    ),
    *(
        "id2label",
        "problem_type",
        "pad_token_id",
        "transformers_version",
        "auto_map",
        "quantization_config",
        "attn_implementation",
    ),
]


@pytest.mark.parametrize("field", OWN_FIELDS)
def test_a_field_of_a_models_config_of_any_kind(field, own_model, tmp_path):
    for i, value in enumerate(WRONG):
        folder = spoilt(own_model, tmp_path / str(i))
        change(folder, "config.json", **{field: value})
        only_ours(use_model, folder)


DECODER_FIELDS = [
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "max_position_embeddings", "hidden_act", "initializer_range", "rms_norm_eps", "rope_parameters", "model_type"),
    *("attention_bias", "mlp_bias", "attention_dropout", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings"),
    *("architectures", "dtype", "layer_types", "num_labels", "id2label", "use_cache", "pretraining_tp", "is_encoder_decoder"),
    *(
        "quantization_config",
        "auto_map",
        "attn_implementation",
        "text_config",
        "rope_scaling",
        "torch_dtype",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "return_dict",
        "is_causal",
    ),
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("field", DECODER_FIELDS)
def test_a_field_of_a_decoders_config_of_any_kind(field, use, headed, tmp_path):
    for i, value in enumerate(WRONG if use == "head" else WRONG[1:6:4]):
        folder = spoilt(headed["score" if use == "head" else "words"], tmp_path / str(i))
        change(folder, "config.json", **{field: value})
        only_ours(USES[use], folder)


@pytest.mark.parametrize("field", DECODER_FIELDS)
def test_a_field_of_a_models_decoder_of_any_kind(field, own_model, tmp_path):
    for i, value in enumerate(WRONG):
        folder = spoilt(own_model, tmp_path / str(i))
        facts = json.loads((folder / "config.json").read_text())["backbone_config"]
        change(folder, "config.json", backbone_config=facts | {field: value})
        only_ours(use_model, folder)


# -- tokenizers and templates ------------------------------------------------------------------------------------------------

TOKENIZER_FIELDS = [
    "version",
    "truncation",
    "padding",
    "added_tokens",
    "normalizer",
    "pre_tokenizer",
    "post_processor",
    "decoder",
    "model",
]
SETTINGS = [
    *("tokenizer_class", "added_tokens_decoder", "bos_token", "eos_token", "pad_token", "unk_token", "model_max_length"),
    *(
        "additional_special_tokens",
        "extra_special_tokens",
        "chat_template",
        "clean_up_tokenization_spaces",
        "auto_map",
        "backend",
    ),
    *("padding_side", "truncation_side", "split_special_tokens", "is_local", "model_input_names"),
]


@pytest.mark.parametrize(
    ("file", "field"), [*(("tokenizer.json", f) for f in TOKENIZER_FIELDS), *(("tokenizer_config.json", f) for f in SETTINGS)]
)
def test_a_field_of_a_tokenizer_of_any_kind(file, field, own_model, tmp_path):
    for i, value in enumerate(WRONG):
        folder = spoilt(own_model, tmp_path / str(i))
        change(folder, file, **{field: value})
        only_ours(use_model, folder)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"])
def test_a_tokenizers_file_of_any_kind(file, own_model, headed, tmp_path):
    for i, text in enumerate(WHOLE):
        for use, folder in ((use_model, own_model), (use_backbone, headed["words"]), (use_pairwise, headed["words"])):
            copy = spoilt(folder, tmp_path / f"{i}{use.__name__}")
            (copy / file).write_bytes(text.encode("latin-1"))
            error = only_ours(use, copy)
            if file == "tokenizer.json":
                assert error is not None
                assert str(copy) in str(error)
                assert "came without tokenizer" not in str(error)


DAMAGED_TEMPLATES = [
    "{% for m in messages %}",
    "{{ messages[0]['content' }}",
    "{% for m in messages %}{{ m.contents.nothing.more }}{% endfor %}",
    "{{ messages.content.nothing }}",
    "{{ 1 / 0 }}",
    "{{ messages | no_such_filter }}",
    "{{ 'x' * 10**9 }}",
    "{{ '%0999999999d' % 3 }}",
    "{{ '%.999999999f' % 3 }}",
    "{{ '{:0>999999999}'.format(3) }}",
    "{{ 'a' | center(999999999) }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ [0] * 10**10 }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(1000000000) %}x{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% include 'config.json' %}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
]


@pytest.mark.parametrize("template", DAMAGED_TEMPLATES)
def test_a_damaged_template_is_called_so_and_blamed_on_no_conversation(template, own_model, headed, tmp_path):
    for use, folder in ((use_model, own_model), (use_backbone, headed["words"]), (use_judge, headed["words"])):
        copy = spoilt(folder, tmp_path / use.__name__)
        (copy / "chat_template.jinja").write_text(template)
        error = only_ours(use, copy)
        assert isinstance(error, CheckpointError | BackboneError)
        assert "chat template is damaged" in str(error)
        assert str(copy) in str(error)


def test_an_endless_template_is_given_up(own_model, tmp_path, monkeypatch):
    monkeypatch.setattr(template_trial, "SECONDS", 0.5)
    copy = spoilt(own_model, tmp_path / "copy")
    loops = "{% for i in range(300) %}" * 3
    (copy / "chat_template.jinja").write_text(f"{loops}{{{{ i }}}}{'{% endfor %}' * 3}")
    with pytest.raises(CheckpointError, match="takes more than 0 s for two words"):
        RewardModel.from_pretrained(copy)


GREEDY = {
    "doubled": "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "added": "{% set ns = namespace(x=[0]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "replaced": "{% set ns = namespace(x='a') %}{% for i in range(6) %}{% set ns.x = ns.x|replace('a', 'a' * 99) %}{% endfor %}",
    "multiplied": "{% set ns = namespace(n=1) %}{% for i in range(10) %}{% set ns.n = ns.n * 10 %}{% endfor %}{{ 'a' * ns.n }}",
    "joined": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]|join %}{% endfor %}",
    "centred": "{% set ns = namespace(n=9) %}{% for i in range(9) %}{% set ns.n = ns.n * 10 %}{% endfor %}{{ 'a'|center(ns.n) }}",
}


@pytest.mark.skipif(sys.platform != "linux", reason="no limit on a process's memory")
@pytest.mark.parametrize("template", GREEDY.values(), ids=GREEDY)
def test_a_template_that_fills_memory_is_given_up_in_another_process(template, own_model, tmp_path):
    copy = spoilt(own_model, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match="takes more than 1024 MiB for two words"):
        RewardModel.from_pretrained(copy)


RELEASED = {
    "num_objectives": [math.inf, 10**9, 0, "19", 19.5, None],
    "gating_n_hidden": [math.inf, 10**9, -1, "3"],
    "gating_hidden_dim": [math.inf, 10**12, -1],
    "gating_temperature": [math.inf, 0, "x"],
    "hidden_size": ["abc", -1],
    "armorm": [
        *({"beta": beta} for beta in ("x", [], math.inf, 0)),
        *({"max_tokens": most} for most in (-5, math.inf, "x", 10**30)),
        *({name: ids} for name in ("header_ids", "closing_ids") for ids in ("text", [-1], [0.5], [10**30])),
        *({"objectives": named} for named in ("x", [{}], [1])),
        *({"rendering": how} for how in ([], {"today": 1})),
        "x",
        [1],
    ],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in RELEASED.items() for value in values])
def test_a_released_config_of_any_kind(field, value, tmp_path):
    copy = spoilt(FOLDER, tmp_path / "copy")
    change(copy, "config.json", **{field: value})
    error = only_ours(use_model, copy)
    assert isinstance(error, CheckpointError)


@pytest.mark.skipif(sys.platform != "linux", reason="no limit on a process's memory")
@pytest.mark.parametrize(
    "condition",
    ["add_generation_prompt", "strftime_now('%Y')|length == 4", "messages[0].content is not string", "bos_token == '<b>'"],
)
def test_a_template_is_tried_in_all_the_ways_that_it_is_rendered_in(condition):
    greedy = f"{{% if {condition} %}}{GREEDY['doubled']}{{% endif %}}x"
    assert "MiB" in (template_trial.trial_fault(greedy, (("bos_token", "<b>"),)) or "")


def test_a_process_that_does_not_start_says_nothing_of_a_template(monkeypatch):
    for program in (None, "", "/no/such/python", sys.executable):
        monkeypatch.setattr(sys, "executable", program)
        assert template_trial.trial_fault(f"{{{{ messages[0].content }}}}{program}") is None
    monkeypatch.setattr(sys, "path", [])  # jinja is not found then, which is no fault of the template
    assert template_trial.trial_fault("{{ messages[0].content }} alone") is None


def test_a_template_that_refuses_in_its_own_words_is_not_damaged(own_model, tmp_path):
    copy = spoilt(own_model, tmp_path / "copy")
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").write_text("{% generation %}{% endgeneration %}{{ '  ' * 4 }}" + template)
    assert RewardModel.from_pretrained(copy).tokenizer is not None
    (copy / "chat_template.jinja").write_text("{{ raise_exception('not today') }}")
    with pytest.raises(ArmormError, match="not today"):
        use_model(copy)


def test_a_tokenizer_of_more_tokens_than_the_decoder_has(own_model, tmp_path):
    copy = spoilt(own_model, tmp_path / "copy")
    facts = json.loads((copy / "tokenizer.json").read_text())
    last = max(facts["model"]["vocab"].values())
    facts["model"]["vocab"] |= {f"more{i}": last + 1 + i for i in range(50)}
    (copy / "tokenizer.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match=r"its tokenizer knows .* tokens, its decoder"):
        RewardModel.from_pretrained(copy)


# -- weights -----------------------------------------------------------------------------------------------------------------


def header(facts: object, size: int | None = None) -> bytes:
    text = json.dumps(facts).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text


HEADERS = [
    b"",
    b"\0" * 8,
    b"\xff" * 64,
    header({}, 2**63),
    header({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 16]}}),
    header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + b"\0" * 4,
    header({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}) + b"\0" * 4,
    header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}) + b"\0" * 4,
    header({"__metadata__": {"format": "tf"}}),
    header([]),
    b"PK\x03\x04" + b"\0" * 100,
]


@pytest.mark.parametrize("number", range(len(HEADERS)))
def test_weights_with_a_hostile_header(number, own_model, headed, tmp_path):
    for use, folder in ((use_model, own_model), (use_backbone, headed["words"]), (use_head, headed["score"])):
        copy = spoilt(folder, tmp_path / use.__name__)
        (copy / "model.safetensors").write_bytes(HEADERS[number])
        error = only_ours(use, copy)
        assert isinstance(error, CheckpointError | BackboneError)
        assert str(copy) in str(error)


INDEXES = [
    {"weight_map": {"a": "../model/model.safetensors"}},
    {"weight_map": {"a": "/etc/hostname"}},
    {"weight_map": {"a": "x/../model.safetensors"}},
    {"weight_map": {"a": "no\0name"}},
    {"weight_map": {"a": 5}},
    {"weight_map": []},
    {"weight_map": {}},
    {"weight_map": "model.safetensors"},
    {"weight_map": {"a": "n" * 300}},
    {},
]


@pytest.mark.parametrize("number", range(len(INDEXES)))
def test_an_index_that_names_no_file_beside_it(number, own_model, headed, tmp_path):
    for use, folder in ((use_model, own_model), (use_backbone, headed["words"]), (use_pairwise, headed["words"])):
        copy = spoilt(folder, tmp_path / use.__name__)
        (copy / "model.safetensors").rename(copy / "held.safetensors")
        (copy / "model.safetensors.index.json").write_text(json.dumps(INDEXES[number]))
        assert isinstance(only_ours(use, copy), CheckpointError | BackboneError)


@pytest.mark.parametrize("use", ["model", "backbone", "head"])
def test_weights_of_other_shapes_and_types(use, own_model, headed, tmp_path):
    folder, call = {
        "model": (own_model, use_model),
        "backbone": (headed["words"], use_backbone),
        "head": (headed["score"], use_head),
    }[use]
    whole = load_file(folder / "model.safetensors")
    for i, change_of in enumerate((lambda t: t[:1], lambda t: t.reshape(-1), lambda t: t[None], lambda t: t.bool())):
        copy = spoilt(folder, tmp_path / str(i))
        name = next(n for n in whole if "q_proj" in n)
        save_file(whole | {name: change_of(whole[name]).contiguous()}, copy / "model.safetensors", {"format": "pt"})
        only_ours(call, copy)


# -- sizes that would be allocated -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2**40, 2**31, 10**9, 10**100])
@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "num_hidden_layers", "intermediate_size", "num_attention_heads"])
def test_an_absurd_size_is_refused_before_anything_is_allocated(field, size, own_model, headed, tmp_path):
    folder = spoilt(headed["words"], tmp_path / "b")
    change(folder, "config.json", **{field: size})
    assert isinstance(only_ours(use_backbone, folder), BackboneError)
    folder = spoilt(own_model, tmp_path / "m")
    facts = json.loads((folder / "config.json").read_text())["backbone_config"]
    change(folder, "config.json", backbone_config=facts | {field: size})
    assert isinstance(only_ours(use_model, folder), CheckpointError)


@pytest.mark.parametrize("field", ["architectures", "model_type", "max_position_embeddings", "num_labels", "vocab_size"])
def test_a_benchmark_of_a_hostile_folder(field, headed, armorm, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "hello", "chosen": "fine", "rejected": "return x"}\n')
    for i, value in enumerate(WRONG):
        folder = Path(shutil.copytree(headed["score"], tmp_path / str(i)))
        change(folder, "config.json", **{field: value})
        code, _, err = armorm("bench", folder, "--suite", tmp_path / "rows.jsonl", "--out", tmp_path / f"out{i}", "--quiet")
        assert code in (0, 2), err
        assert "fault of armorm's own" not in err


def test_wide_gates_are_refused_too(own_model, tmp_path):
    folder = spoilt(own_model, tmp_path / "m")
    change(folder, "config.json", gate_hidden=[2**40, 2**40])
    with pytest.raises(CheckpointError, match="can't be loaded"):
        RewardModel.from_pretrained(folder)


# -- what would be fetched or run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["attn_implementation", "experts_implementation"])
def test_a_kernel_on_the_hub_is_never_fetched(key, own_model, headed, tmp_path):
    for use, folder in ((use_model, own_model), (use_backbone, headed["words"])):
        copy = spoilt(folder, tmp_path / use.__name__)
        change(copy, "config.json", **{key: "someone/kernel"})
        error = only_ours(use, copy)
        assert "names code on the hub" in str(error)


def test_an_adapters_base_is_never_fetched(own_model, headed, tmp_path):
    for use, folder in ((use_model, own_model), (use_backbone, headed["words"])):
        copy = spoilt(folder, tmp_path / use.__name__)
        (copy / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/model", "peft_type": "LORA"}))
        assert "holds an adapter" in str(only_ours(use, copy))


def test_foreign_code_is_never_run(headed, tmp_path):
    copy = spoilt(headed["words"], tmp_path / "copy")
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    change(copy, "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.M"})
    change(copy, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    for use in USES.values():
        assert isinstance(only_ours(use, copy), BackboneError)
    assert not (tmp_path / "ran").exists()


# -- names and places --------------------------------------------------------------------------------------------------------

NAMES = ["~no-such-user-9/model", "a\0b", "x" * 5000, "/" + "y" * 5000, "", " ", "./x\ny", "a/b/c", "/dev/null"]


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_a_name_that_is_none(number, armorm, tmp_path):
    name = NAMES[number]
    for call in (
        local,
        load_backbone,
        load_tokenizer,
        fingerprint,
        lambda n: SequenceHead("h", n),
        lambda n: PairwiseModel("p", n),
    ):
        with pytest.raises(ArmormError) as told:
            call(name)
        assert told.value.exit_code == 2
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    code, _, err = armorm("score", name, tmp_path / "rows.jsonl")
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "SHA256SUMS"])
@pytest.mark.parametrize("kind", ["fifo", "socket", "loop", "folder", "device"])
def test_a_place_that_is_no_file(file, kind, own_model, headed, tmp_path, monkeypatch):
    for use, folder in ((use_model, own_model), (use_backbone, headed["words"])):
        copy = spoilt(folder, tmp_path / use.__name__)
        (copy / file).unlink(missing_ok=True)
        if kind == "fifo":
            os.mkfifo(copy / file)
        elif kind == "socket":
            monkeypatch.chdir(copy)
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(file)
        elif kind == "loop":
            (copy / file).symlink_to(file)
        elif kind == "folder":
            (copy / file).mkdir()
        else:
            (copy / file).symlink_to("/dev/zero")
        assert isinstance(only_ours(use, copy), CheckpointError | BackboneError)


@pytest.mark.parametrize(
    "named", ["/dev/zero", "../../../../../../dev/zero", "a/../config.json", "/etc/passwd", "a\0b", "pipe", "zero"]
)
def test_a_list_that_leads_outside_or_to_what_has_no_end(named, own_model, tmp_path):
    copy = spoilt(own_model, tmp_path / "model")
    os.mkfifo(copy / "pipe")
    (copy / "zero").symlink_to("/dev/zero")
    text = f"{'1' * 64}  {named}\n"
    (copy / "SHA256SUMS").write_text(f"{text}# sealed {hashlib.sha256(text.encode()).hexdigest()}\n")
    error = only_ours(use_model, copy)
    assert isinstance(error, CheckpointError)
    assert "no regular file" in str(error) if named in ("pipe", "zero") else "SHA256SUMS: damaged" in str(error)


@pytest.mark.parametrize("name", ["reference.json", "uncertainty.json", "SHA256SUMS", "config.json"])
def test_a_file_of_facts_without_end_is_not_read(name, own_model, tmp_path):
    copy = spoilt(own_model, tmp_path / "model")
    with (copy / name).open("wb") as file:
        file.truncate(1 << 40)  # of which the disk holds nothing
    assert isinstance(only_ours(use_model, copy), CheckpointError)
    assert architecture_of(str(copy)) == ("" if name == "config.json" else architecture_of(str(own_model)))


def test_a_folder_that_may_not_be_read(own_model, monkeypatch):
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(CheckpointError, match="Permission denied"):
        local(str(own_model))
    with pytest.raises(BackboneError, match="Permission denied"):
        load_backbone(str(own_model))


@pytest.mark.parametrize(
    ("field", "value"),
    [("output_hidden_states", True), ("output_attentions", True), ("output_router_logits", True), ("use_cache", False)],
)
def test_switches_that_a_pass_sets_itself_move_no_number(field, value, own_model, tmp_path):
    plain = RewardModel.from_pretrained(spoilt(own_model, tmp_path / "plain")).score(TALK).score
    folder = spoilt(own_model, tmp_path / "switched")
    facts = json.loads((folder / "config.json").read_text())["backbone_config"]
    change(folder, "config.json", backbone_config=facts | {field: value})
    assert RewardModel.from_pretrained(folder).score(TALK).score == plain


@pytest.mark.parametrize(("field", "value"), [("is_causal", False), ("return_dict", False), ("output_hidden_states", [1])])
def test_a_decoder_that_does_not_read_from_left_to_right_is_refused(field, value, own_model, headed, tmp_path):
    folder = spoilt(own_model, tmp_path / "model")
    facts = json.loads((folder / "config.json").read_text())["backbone_config"]
    change(folder, "config.json", backbone_config=facts | {field: value})
    with pytest.raises(CheckpointError, match=f"{field}.*take the key out"):
        RewardModel.from_pretrained(folder)
    folder = spoilt(headed["words"], tmp_path / "decoder")
    change(folder, "config.json", **{field: value})
    with pytest.raises(BackboneError, match=f"{field}.*take the key out"):
        load_backbone(str(folder), dtype="float32", device="cpu")
