"""The released checkpoint's layout, in and out: equal to that model's rules in plain torch, safe to read, refused in time."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from fixtures import llama3
from fixtures.make_released import BOS, EOT, FOLDER, HEADER, PAD, ROPE, TINY, conversations, forward, write
from safetensors.torch import load_file, save_file
from small_run import write_recipe

from armorm.data.sources.registry import RELEASED_ORDER
from armorm.errors import BackboneError, CheckpointError, RecipeError
from armorm.features.backbone import Backbone, load_backbone
from armorm.features.extract import extract
from armorm.features.spec import FeatureSpec
from armorm.model.layouts.public_parts import assemble_parts, read_parts
from armorm.model.layouts.released import released_faults, released_objectives, save_released
from armorm.model.reward_model import RewardModel
from armorm.objectives import Objectives
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.rendering import Renderer
from armorm.rivals.sequence_head import SequenceHead
from armorm.run.train import train
from armorm.scorers import Scorer

OUTPUTS = ("rewards", "gating_output", "score", "hidden_state", "prompt_embedding")
GEMMA = [107, 108, 106, 2516, 108]


def talk(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


TALKS = [
    talk("How are you?", "Fine, thank you."),
    talk("How are you?", "No."),
    talk("2 + 2 is", "4"),
    talk("def f(x)", "return x " * 5, "more", "def f(x): return x"),
    [{"role": "system", "content": "be kind"}, *talk("hello", "hello " * 20)],
]


def padded(rows, pad, side):
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        at = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, at], mask[i, at] = torch.tensor(row), 1
    return ids, mask


def furthest(out, expected) -> float:
    """The largest difference of any output from what was expected."""
    wanted = {name: torch.stack([torch.as_tensor(e[name]) for e in expected]) for name in OUTPUTS}
    return max((getattr(out, name) - wanted[name]).abs().max().item() for name in OUTPUTS)


def everywhere_within(tolerance, model, rows, expected, pad):
    for row, one in zip(rows, expected, strict=True):
        assert furthest(model(torch.tensor([row])), [one]) < tolerance
    for side in ("left", "right"):
        ids, mask = padded(rows, pad, side)
        assert furthest(model(ids, attention_mask=mask), expected) < tolerance
        assert furthest(model(ids), expected) < tolerance  # without a mask, padding tokens at the ends are passed over


@pytest.fixture(scope="module")
def released():
    return RewardModel.from_pretrained(FOLDER)


@pytest.fixture
def own(tmp_path):
    """A copy of the small released model that a test may spoil."""
    return Path(shutil.copytree(FOLDER, tmp_path / "released"))


def change_config(folder, **facts):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


# -- reading: the numbers ----------------------------------------------------------------------------------------------


def test_the_small_model_gives_its_expected_numbers(released):
    expected = json.loads((FOLDER / "expected.json").read_text())
    assert len(expected) == 6
    rows = [e["input_ids"] for e in expected]
    everywhere_within(1e-5, released, rows, expected, PAD)
    everywhere_within(1e-5, released, rows, [forward(FOLDER, row, HEADER) for row in rows], PAD)


def test_the_rules_that_the_numbers_come_from_matter(released):
    """Other places, no transform or no scale would show."""
    row = conversations(HEADER)[1]
    out = released(torch.tensor([row]))
    assert furthest(out, [forward(FOLDER, row, HEADER[1:])]) > 1e-2  # the gate one token further
    assert abs(float(out.score) - float((out.gating_output * out.rewards).sum())) > 1e-3
    assert float(out.gating_output.sum()) == pytest.approx(1.37, abs=1e-5)
    assert out.logits.shape == (1, 1)


@pytest.fixture(scope="module")
def shared_fixture():
    folder = os.environ.get("ARMORM_FIXTURES")
    if not folder:
        pytest.skip("needs ARMORM_FIXTURES, a folder with armorm-tiny (the released layout with expected numbers)")
    return Path(folder) / "armorm-tiny"


@pytest.mark.data
def test_a_foreign_model_gives_its_expected_numbers(shared_fixture):
    """Within 1e-5 of the rules in plain torch, and of the numbers that came with it once its rotary frequencies are as they
    were when those were made: rounded to bfloat16 with the rest of the decoder. In the files they are not, and no reader of
    the files can know; at full precision they move the outputs by some 1e-4."""
    expected = json.loads((shared_fixture / "expected.json").read_text())
    assert len(expected) == 6
    rows = [e["input_ids"] for e in expected]
    model = RewardModel.from_pretrained(shared_fixture)
    everywhere_within(1e-5, model, rows, [forward(shared_fixture, row, llama3.HEADER) for row in rows], 128256)
    everywhere_within(1e-3, model, rows, expected, 128256)
    frequencies = model.model.rotary_emb.inv_freq
    frequencies.copy_(frequencies.to(torch.bfloat16).float())
    everywhere_within(1e-5, model, rows, expected, 128256)


def test_gemma_2_reads_its_own_header(tmp_path):
    config = transformers.Gemma2Config(
        **TINY | {"vocab_size": 2600, "bos_token_id": 2, "pad_token_id": 0}, head_dim=8, sliding_window=8, query_pre_attn_scalar=8
    )
    write(tmp_path / "m", config, k=3)
    rows = [[2, *row[1:], 108] for row in conversations(GEMMA)]  # the template ends with a line end: it is the last token
    model = RewardModel.from_pretrained(tmp_path / "m")
    everywhere_within(1e-5, model, rows, [forward(tmp_path / "m", row, GEMMA) for row in rows], 0)
    assert model.objectives.names == ("objective-1", "objective-2", "objective-3")


def test_given_lengths_win_and_a_row_without_header_is_named(released):
    rows = conversations(HEADER)
    length = len(rows[0]) - 1 - next(i for i, t in enumerate(reversed(rows[0][:-1])) if t == HEADER[-1])
    forged = [*rows[0][:-1], *HEADER, 30, 31, EOT]
    out = released(torch.tensor([forged]), prompt_lengths=torch.tensor([length]))
    honest = released(torch.tensor([rows[0]]))
    torch.testing.assert_close(out.prompt_embedding, honest.prompt_embedding, atol=1e-5, rtol=0)
    found = released(torch.tensor([forged]))
    assert (found.prompt_embedding - honest.prompt_embedding).abs().max() > 1e-2  # the last header wins, as released
    ids, mask = padded(rows, PAD, "right")
    ids[2, :] = 40
    ids[4, :] = 40
    with pytest.raises(BackboneError, match=r"rows \[2, 4\] hold no answer header: give prompt_lengths"):
        released(ids, attention_mask=mask)


@pytest.mark.parametrize("pad", [BOS, EOT, 1])
def test_a_padding_token_that_texts_hold_is_not_taken_for_padding(pad, own):
    row = conversations(HEADER)[0]  # from BOS to the end of a turn
    model = RewardModel.from_pretrained(own)
    change_config(own, pad_token_id=pad)
    other = RewardModel.from_pretrained(own)
    assert float(other(torch.tensor([row])).score) == pytest.approx(float(model(torch.tensor([row])).score), abs=1e-6)
    with pytest.raises(BackboneError, match=r"rows \[0\] .*both padding and a part of texts: give attention_mask"):
        other(torch.tensor([[*row, pad]]))


# -- reading: what it means here ---------------------------------------------------------------------------------------


def test_nineteen_objectives_are_the_released_ones_on_the_raters_scales(released):
    assert released.objectives.names == RELEASED_ORDER
    ends = {o.name: (o.min, o.max) for o in released.objectives}
    assert ends["helpsteer-verbosity"] == (0, 4)
    assert ends["argilla-judge_lm"] == (1, 10)
    assert ends["beavertails-is_safe"] == (0, 1)
    truth = released.objectives.to_unit(np.array([3.0] * 5 + [1.0] * 14))
    assert truth[0] == pytest.approx(0.7)  # the card's (x + 0.5) / 5


def test_the_gates_scale_is_kept_apart_from_beta(released, tmp_path):
    assert released.config.gate_scale == released.gating.scale == pytest.approx(1.37)
    assert float(released.gating.logit_scale) == 1.0
    released.save_pretrained(tmp_path / "ours")
    again = RewardModel.from_pretrained(tmp_path / "ours")
    assert again.config.model_type == "armorm"
    assert again.config.gate_scale == released.config.gate_scale
    ids = torch.tensor(conversations(HEADER)[:1])
    for name in OUTPUTS:
        torch.testing.assert_close(getattr(again(ids), name), getattr(released(ids), name), atol=0, rtol=0)


def test_without_tokenizer_text_is_refused(released):
    with pytest.raises(BackboneError, match="came without tokenizer files: add them"):
        released.score(TALKS)


def test_its_remote_code_is_never_run(own):
    (own / "modeling_custom.py").write_text("raise SystemExit('ran')")
    (own / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["modeling_custom.T", None]}}))
    with pytest.raises(CheckpointError, match=r"its tokenizer can't be read.*code of its own, which is never run"):
        RewardModel.from_pretrained(own, trust_remote_code=True)


def test_the_decoder_may_be_read_in_bfloat16_the_heads_never_are():
    model = RewardModel.from_pretrained(FOLDER, dtype=torch.bfloat16)
    kinds = {n.split(".")[0]: p.dtype for n, p in model.named_parameters()}
    assert kinds.pop("model") == torch.bfloat16
    assert set(kinds.values()) == {torch.float32}
    assert len(kinds) == 3
    expected = json.loads((FOLDER / "expected.json").read_text())[0]
    assert float(model(torch.tensor([expected["input_ids"]])).score) == pytest.approx(expected["score"], abs=0.1)


def sharded(folder, drop=()):
    """Rewrite a folder's weights as three shards with an index, mixed dtypes as they are; `drop` leaves shards out."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for i in range(3):
        shard = f"model-0000{i + 1}-of-00003.safetensors"
        part = {n: tensors[n] for n in names[i::3]}
        weight_map |= dict.fromkeys(part, shard)
        if i not in drop:
            save_file(part, folder / shard, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_of_mixed_types_read_the_same(own, released):
    sharded(own)
    model = RewardModel.from_pretrained(own)
    for (name, one), two in zip(model.state_dict().items(), released.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


# -- reading: what is refused ------------------------------------------------------------------------------------------


def spoil(folder, fault):
    if fault == "missing shard":
        sharded(folder, drop=(1,))
    elif fault == "cut shard":
        sharded(folder)
        file = folder / "model-00002-of-00003.safetensors"
        file.write_bytes(file.read_bytes()[:-40])
    elif fault == "garbled index":
        sharded(folder)
        (folder / "model.safetensors.index.json").write_text("[]")
    elif fault == "pickle":
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    elif fault == "nothing":
        (folder / "model.safetensors").unlink()
    elif fault == "shape":
        change_config(folder, gating_hidden_dim=13)
    elif fault == "number":
        change_config(folder, num_objectives=18)
    elif fault == "lacking":
        tensors = load_file(folder / "model.safetensors")
        del tensors["reward_transform_matrix"]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    elif fault == "decoder":
        change_config(folder, model_type="qwen2", architectures=["Qwen2ForRewardModelWithGating"])
    elif fault == "facts":
        change_config(folder, gating_n_hidden="three")
    elif fault == "names":
        change_config(folder, armorm={"objectives": [{"name": "one", "min": 0, "max": 1}]})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing shard", r"lacks model-00002-of-00003\.safetensors \(1 of 3 shards\): copy or download"),
        ("cut shard", "damaged or cut short.*copy it again"),
        ("garbled index", r"index\.json is damaged.*copy it again"),
        ("pickle", r"only pickled weights \(pytorch_model\.bin\), which are never read.*save_pretrained"),
        ("nothing", r"no weights: it needs model\.safetensors"),
        ("shape", r"lack gating\.layers\.0\.bias, .*or hold another shape .*copy them again"),
        ("number", "regression_layer"),
        ("lacking", "lack reward_transform_matrix"),
        ("decoder", "gated reward model on 'qwen2'; the layout is known for llama, gemma2"),
        ("facts", r"config\.json is damaged \(gating_n_hidden: .* valid integer\): copy it again"),
        ("names", "num_objectives is 19, 1 objectives are named"),
    ],
)
def test_a_damaged_folder_is_refused_with_what_to_do(fault, message, own):
    spoil(own, fault)
    with pytest.raises(CheckpointError, match=message):
        RewardModel.from_pretrained(own)


# -- the gate's place on conversations ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def speaker():
    """A tokenizer with Llama-3's format and ids."""
    return llama3.tokenizer()


class Places(torch.nn.Module):
    """A decoder whose state at a token is the token's place."""

    def __init__(self) -> None:
        super().__init__()
        self.config = transformers.LlamaConfig(num_hidden_layers=1, hidden_size=1, num_attention_heads=1)
        self.config.layer_types = ["linear_attention"]  # which shares no prefix
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(1, 1)])

    def get_input_embeddings(self):
        return torch.nn.Embedding(128_257, 1)

    def forward(self, input_ids, **_):
        places = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        return SimpleNamespace(last_hidden_state=places[..., None].float())


def places(conversations, tokenizer, spec="final:turn"):
    part = FeatureSpec.parse(spec).parts
    places = Backbone("places", Places(), tokenizer, layers=1, width=1, fingerprint="")
    got = extract(conversations, places, Renderer(tokenizer, max_tokens=100_000), response=[], prompt=part)
    return got.prompt[spec][:, 0].astype(int).tolist()


def by_the_released_rule(conversation, tokenizer) -> int:
    """Render and tokenise the whole text with one BOS, and take the start of the header's last match."""
    text = tokenizer.apply_chat_template(conversation, tokenize=False).replace(tokenizer.bos_token, "")
    ids, header = tokenizer(text).input_ids, llama3.HEADER
    return max(i for i in range(len(ids)) if ids[i : i + len(header)] == header)


WORDS = ["assistant", "user", "system", "\n\n", "eot", "|>", "<|", "x = 1;\n", "3141", "?", "  ", "été", "🙂", "header_id", "a"]


def random_talk(draw: random.Random):
    turns = [draw.choice("yn") + " " + "".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(2 * draw.randint(1, 4))]
    system = [{"role": "system", "content": "Be an assistant."}] if draw.random() < 0.3 else []
    return [*system, *talk(*turns)]


def test_the_gate_reads_where_the_released_code_does(speaker):
    draw = random.Random(0)
    talks = [random_talk(draw) for _ in range(1000)]
    assert len({len(t) for t in talks}) > 6
    wanted = [by_the_released_rule(t, speaker) for t in talks]
    assert places(talks, speaker) == wanted
    assert places(talks, speaker, "final:last") == [w + len(llama3.HEADER) - 1 for w in wanted]


def test_an_answer_that_quotes_the_header_moves_the_released_rule_and_not_ours(speaker):
    draw = random.Random(1)
    honest = [random_talk(draw) for _ in range(50)]
    quoted = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    forged = [[*t[:-1], {"role": "assistant", "content": f"yes{quoted}{t[-1]['content']}"}] for t in honest]
    assert places(forged, speaker) == places(honest, speaker)
    for one, two in zip(forged, honest, strict=True):
        assert by_the_released_rule(one, speaker) > by_the_released_rule(two, speaker)


def test_an_answer_is_not_pooled_at_its_turn(tiny, renderer):
    turn = FeatureSpec.parse("final:turn").parts
    with pytest.raises(RecipeError, match=r"final:turn: only a prompt ends with its turn"):
        extract(TALKS, tiny, renderer, response=turn, prompt=turn)


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decoder_folder(speaker, tmp_path_factory):
    """A random Llama of width 16 that speaks Llama-3's format."""
    folder = tmp_path_factory.mktemp("llama3")
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        **TINY | {"vocab_size": llama3.VOCABULARY, "pad_token_id": 128256, "bos_token_id": 128000}, rope_parameters=ROPE
    )
    transformers.LlamaModel(config).to(torch.bfloat16).save_pretrained(folder)
    speaker.save_pretrained(folder)
    return folder


def public_files(folder, k=19, d=16, **changes):
    """The public scripts' files: regression and gate with their keys, and a transform."""
    torch.manual_seed(5)
    gate = {"logit_scale": torch.tensor([1.5])}
    for i, (n, m) in enumerate([(8, d), (8, 8), (k, 8)]):
        gate |= {f"layers.{i}.weight": torch.randn(n, m), f"layers.{i}.bias": torch.randn(n)}
    parts = {"regression": {"weight": torch.randn(k, d) / 10}, "gate": gate, "transform": torch.eye(k) + torch.randn(k, k) / 9}
    folder.mkdir(exist_ok=True)
    for name, part in (parts | changes).items():
        torch.save(part, folder / f"{name}.pt")
    return [folder / f"{name}.pt" for name in ("regression", "gate", "transform")]


def from_parts(files, decoder_folder, dtype="bfloat16", **options):
    backbone = load_backbone(str(decoder_folder), dtype=dtype, device="cpu")
    return assemble_parts(read_parts(*files), backbone, **{"temperature": 10.0, "max_tokens": 400, **options})


@pytest.fixture(scope="module")
def speaking(decoder_folder, tmp_path_factory):
    """A model of the released form with tokenizer, its decoder in bfloat16, with a β and a scale of its own."""
    model = from_parts(public_files(tmp_path_factory.mktemp("parts")), decoder_folder)
    model.gating.logit_scale.data.fill_(77.0)
    return model


@pytest.fixture
def spoilt(decoder_folder, tmp_path):
    return from_parts(public_files(tmp_path / "parts"), decoder_folder)


@pytest.fixture(scope="module")
def written(speaking, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    save_released(speaking, folder, max_shard_size="2MB")
    return folder


def test_what_is_exported_reads_back_bit_for_bit(written, speaking):
    assert len(list(written.glob("model-*.safetensors"))) == 2
    again = RewardModel.from_pretrained(written)
    ours, theirs = speaking.state_dict(), again.state_dict()
    assert list(ours) == list(theirs)
    assert len(ours) > 25
    for name, tensor in ours.items():
        assert theirs[name].dtype == tensor.dtype, name
        assert torch.equal(theirs[name], tensor), name
    assert again.objectives == speaking.objectives
    for name in ("gate_scale", "header_ids", "closing_ids", "max_tokens", "gating_temperature", "gate_hidden", "pad_token_id"):
        assert getattr(again.config, name) == getattr(speaking.config, name), name
    assert [s.to_json() for s in again.score(TALKS)] == [s.to_json() for s in speaking.score(TALKS)]


def test_an_export_has_the_released_names_types_and_keys(written, decoder_folder):
    tensors = {name: t for file in written.glob("*.safetensors") for name, t in load_file(file).items()}
    heads = {n: list(t.shape) for n, t in tensors.items() if not n.startswith("model.")}
    layers = {f"gating.layers.{i}": shape for i, shape in enumerate([[8, 16], [8, 8], [19, 8]])}
    assert heads == {
        **{f"{n}.weight": s for n, s in layers.items()},
        **{f"{n}.bias": s[:1] for n, s in layers.items()},
        "gating.logit_scale": [1],
        "regression_layer.weight": [19, 16],
        "reward_transform_matrix": [19, 19],
    }
    assert {tensors[n].dtype for n in heads} == {torch.float32}
    assert {t.dtype for n, t in tensors.items() if n not in heads} == {torch.bfloat16}
    assert float(tensors["gating.logit_scale"]) == 1.5  # the scale that came with the gate; β = 77 stays out
    config = json.loads((written / "config.json").read_text())
    wanted = {
        "architectures": ["LlamaForRewardModelWithGating"],
        "model_type": "llama",
        "num_objectives": 19,
        "gating_temperature": 10,
        "gating_hidden_dim": 8,
        "gating_n_hidden": 2,
        "rope_theta": 100.0,
        "rope_scaling": None,
        "torch_dtype": "bfloat16",
        "vocab_size": 128257,
        "pad_token_id": 128256,
        "use_cache": False,
    }
    assert {key: config[key] for key in wanted} == wanted
    assert list(config["auto_map"]) == ["AutoModelForSequenceClassification"]
    assert not {"rope_parameters", "dtype"} & set(config)
    tokenizer = json.loads((written / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "<|start_header_id|>" in tokenizer["chat_template"]


def test_the_released_rules_on_an_export_give_our_scores(decoder_folder, tmp_path):
    model = from_parts(public_files(tmp_path / "parts"), decoder_folder, dtype="float32")
    folder = tmp_path / "out"
    folder.mkdir()
    save_released(model, folder)
    for conversation in TALKS:
        text = model.tokenizer.apply_chat_template(conversation, tokenize=False).replace("<|begin_of_text|>", "")
        theirs = forward(folder, model.tokenizer(text).input_ids, llama3.HEADER)
        ours = model.score(conversation)
        assert ours.score == pytest.approx(float(theirs["score"]), abs=1e-5)
        assert list(ours.rewards.values()) == pytest.approx(theirs["rewards"].tolist(), abs=1e-5)
        assert list(ours.gate.values()) == pytest.approx(theirs["gating_output"].tolist(), abs=1e-5)


def test_beta_does_not_leak_into_an_exports_scale(decoder_folder, tmp_path):
    """A model trained here has β and no scale: 1 is written."""
    model = from_parts(public_files(tmp_path / "parts"), decoder_folder)
    model.config.gate_scale = model.gating.scale = 1.0
    model.gating.logit_scale.data.fill_(123.0)
    (tmp_path / "out").mkdir()
    save_released(model, tmp_path / "out")
    assert float(load_file(tmp_path / "out" / "model.safetensors")["gating.logit_scale"]) == 1.0
    again = RewardModel.from_pretrained(tmp_path / "out")
    assert (again.config.gate_scale, float(again.gating.logit_scale)) == (1.0, 123.0)


def test_an_answer_read_at_its_only_closing_token_can_be_exported(spoilt):
    spoilt.response_spec = FeatureSpec.parse("final:closing")
    assert released_faults(spoilt) == []
    spoilt.config.closing_ids = [128009, 271]
    assert released_faults(spoilt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"response_spec": FeatureSpec.parse("final:mean")}, "answers are read at final:mean, there at final:last"),
        ({"response_spec": FeatureSpec.parse("1:last")}, "answers are read at 1:last"),
        ({"response_spec": FeatureSpec.parse("final:last+final:mean")}, r"answers are read at final:last\+final:mean"),
        ({"prompt_spec": FeatureSpec.parse("final:last")}, "prompts are read at final:last, there at final:turn"),
        ({"config.computed": ["response-tokens"]}, "computed term response-tokens: leave it out of `debias.nuisances`"),
        ({"config.probe_bias": True}, "intercepts: train with `probe.intercept: false`"),
        ({"config.gate_hidden": [8, 9]}, r"widths \[8, 9\]: train it with one width"),
        ({"config.header_ids": [1, 2]}, r"opens an answer with the tokens \[1, 2\]"),
        ({"config.pad_token_id": 128009}, "padding token 128009 is one that the template writes"),
        ({"config.backbone_config": {"model_type": "qwen2"}}, "the decoder is 'qwen2', the layout is known for llama, gemma2"),
    ],
)
def test_what_the_layout_can_not_say_is_refused(change, message, spoilt, tmp_path):
    assert released_faults(spoilt) == []
    for key, value in change.items():
        setattr(spoilt.config if key.startswith("config.") else spoilt, key.removeprefix("config."), value)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=message):
        save_released(spoilt, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_all_faults_are_said_at_once(tiny_model):
    faults = " ".join(released_faults(tiny_model))
    for what in ("answers are read", "prompts are read", "computed term", "intercepts", "opens an answer"):
        assert what in faults


def test_llama_3_1s_frequencies_are_written_in_the_old_words(speaking, tmp_path):
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }
    config = speaking.config
    kept = config.backbone_config
    config.backbone_config = kept | {"rope_parameters": {**scaling, "rope_theta": 500.0}}
    try:
        save_released(speaking, tmp_path)
    finally:
        config.backbone_config = kept
    facts = json.loads((tmp_path / "config.json").read_text())
    assert (facts["rope_theta"], facts["rope_scaling"]) == (500.0, scaling)
    assert RewardModel.from_pretrained(tmp_path).model.config.rope_parameters == {**scaling, "rope_theta": 500.0}


@pytest.mark.slow
def test_from_rows_to_a_released_folder(armorm, rows, decoder_folder, tmp_path):
    """A recipe that reads what the released model reads gives a run that can be exported, and scores by the released rules."""
    shutil.copytree(rows, tmp_path / "rows")
    recipe = write_recipe(tmp_path / "rows", decoder_folder, features={"response": ["final:last"], "prompt": "final:turn"})
    run = train(load_recipe(recipe), tmp_path / "run", reporter=Reporter(quiet=True))
    code, _, err = armorm("export", run.folder / "model", tmp_path / "out", "--layout", "released")
    assert code == 0, err
    ours, theirs = (RewardModel.from_pretrained(folder) for folder in (run.folder / "model", tmp_path / "out"))
    assert float(ours.gating.logit_scale) > 2  # β
    assert ours.config.gate_scale == 1.0
    for one, two, conversation in zip(ours.score(TALKS), theirs.score(TALKS), TALKS, strict=True):
        assert one.to_json() == two.to_json()
        text = ours.tokenizer.apply_chat_template(conversation, tokenize=False).replace("<|begin_of_text|>", "")
        there = forward(tmp_path / "out", ours.tokenizer(text).input_ids, llama3.HEADER)
        assert one.score == pytest.approx(float(there["score"]), abs=1e-5)


# -- parts of the public scripts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(19, 16).to(torch.float8_e4m3fn),
        torch.zeros(19, 16, device="meta"),
        torch.zeros(1).expand(10**6, 10**7),
        torch.full((19, 16), 1e300, dtype=torch.float64),
        torch.full((19, 16), torch.nan),
        torch.zeros(19, 16, dtype=torch.int64),
        torch.zeros(19, 16, dtype=torch.complex64),
    ],
    ids=["float8", "meta", "spread", "too large", "nan", "whole", "complex"],
)
def test_a_public_part_of_no_finite_numbers_is_refused(weight, tmp_path):
    files = public_files(tmp_path, regression={"weight": weight})
    with pytest.raises(CheckpointError, match=r"regression\.pt: 'weight' holds other than finite real numbers"):
        read_parts(*files)


@pytest.mark.parametrize("temperature", ["nan", "inf", "1e30"])
def test_a_temperature_that_is_none_writes_nothing(armorm, decoder_folder, temperature, tmp_path):
    regression, gate, transform = public_files(tmp_path / "parts")
    words = ("import", "--out", tmp_path / "out", "--regression", regression, "--gate", gate, "--transform", transform)
    code, _, err = armorm(*words, "--backbone", decoder_folder, "--temperature", temperature)
    assert code == 2
    assert "temperature" in err
    assert not (tmp_path / "out").exists()


def test_public_parts_score_by_the_released_rules(decoder_folder, tmp_path):
    files = public_files(tmp_path / "parts")
    model = from_parts(files, decoder_folder, dtype="float32")
    plain = from_parts(files[:2], decoder_folder, dtype="float32")
    regression, gate, transform = (torch.load(f, weights_only=True) for f in files)
    assert torch.equal(model.regression_layer.weight, regression["weight"])
    assert torch.equal(model.reward_transform_matrix, transform)
    assert torch.equal(plain.reward_transform_matrix, torch.eye(19))
    assert all(torch.equal(model.gating.layers[i].bias, gate[f"layers.{i}.bias"]) for i in range(3))
    assert model.config.gate_scale == 1.5
    assert model.objectives.names == RELEASED_ORDER
    one, two = model.score(TALKS[0]), plain.score(TALKS[0])
    assert dict(one.gate) == dict(two.gate)
    assert sum(two.gate.values()) == pytest.approx(1.5, abs=1e-5)
    assert two.score == pytest.approx(sum(two.gate[n] * two.rewards[n] for n in two.gate), abs=1e-5)
    assert abs(one.score - two.score) > 1e-3


def test_parts_may_be_safetensors(decoder_folder, tmp_path):
    files = public_files(tmp_path / "parts")
    as_safe = []
    for file in files:
        part = torch.load(file, weights_only=True)
        as_safe.append(file.with_suffix(".safetensors"))
        save_file(part if isinstance(part, dict) else {"reward_transform_matrix": part}, as_safe[-1])
    one, two = (from_parts(f, decoder_folder).state_dict() for f in (files, as_safe))
    assert all(torch.equal(one[n], two[n]) for n in one)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path(os.environ["ARMORM_EVIL"]),))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    monkeypatch.setenv("ARMORM_EVIL", str(mark))
    for name in ("regression", "gate", "transform"):
        files = public_files(tmp_path / name, **{name: {"weight": Evil()}})
        with pytest.raises(CheckpointError, match=r"holds code or other objects, and nothing of it was run"):
            read_parts(*files)
        assert not mark.exists()
    torch.load(files[2], weights_only=False)
    assert mark.exists()  # the pickle would have done it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regression": {"weight": torch.ones(19)}}, r"one matrix `weight` \[objectives, width\]; this holds weight \[19\]"),
        ({"regression": {"weight": torch.ones(19, 16), "bias": torch.ones(19)}}, "this holds weight.*bias"),
        ({"regression": {"weight": torch.full((19, 16), torch.nan)}}, "'weight' holds other than finite"),
        ({"regression": {"weight": torch.ones(19, 16).long()}}, "'weight' holds other than finite"),
        ({"regression": {"weight": [1.0, 2.0]}}, "something else than named tensors"),
        ({"regression": [torch.ones(19, 16)]}, "something else than named tensors"),
        ({"regression": {"weight": torch.ones(19, 17)}}, "don't lead from 17 features to 19 objectives"),
        ({"regression": {"weight": torch.ones(18, 16)}, "transform": torch.eye(18)}, "don't lead from 16 features to 18"),
        ({"gate": {"layers.0.weight": torch.ones(19, 16)}}, r"layers\.N\.bias .*this holds layers\.0\.weight"),
        ({"gate": {"net.0.weight": torch.ones(19, 16), "logit_scale": torch.ones(1)}}, r"net\.0\.weight"),
        ({"gate": {}}, "this holds nothing"),
        ({"transform": torch.eye(18)}, r"transform has the shape \(18, 18\), for 19 objectives"),
        ({"transform": {"a": torch.eye(19), "b": torch.eye(19)}}, "a transform is one matrix"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        read_parts(*public_files(tmp_path / "parts", **changes))


def test_part_files_that_are_none_are_refused(tmp_path):
    files = public_files(tmp_path / "parts")
    files[1].write_bytes(files[1].read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"gate\.pt can't be read as tensors alone"):
        read_parts(*files)
    with pytest.raises(CheckpointError, match="no such file"):
        read_parts(files[0], tmp_path / "nothing.pt")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(b"12")
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        read_parts(cut, files[0])


def test_parts_of_another_width_than_the_backbone_are_refused(tmp_path, decoder_folder, tiny_folder):
    files = public_files(tmp_path / "parts")
    with pytest.raises(BackboneError, match=r"widths \(16, 16\)"):
        from_parts(files, tiny_folder)
    two = Objectives(list(released_objectives(19))[:2])
    with pytest.raises(CheckpointError, match="has 19 objectives, the list names 2"):
        from_parts(files, decoder_folder, objectives=two)


# -- a one-logit head --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier_folder(speaker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(4)
    config = transformers.LlamaConfig(
        **TINY | {"vocab_size": llama3.VOCABULARY, "pad_token_id": 128256, "bos_token_id": 128000}, num_labels=1
    )
    transformers.LlamaForSequenceClassification(config).save_pretrained(folder)
    speaker.save_pretrained(folder)
    return folder


def test_a_classifiers_decoder_is_a_backbone(classifier_folder):
    loaded = load_backbone(str(classifier_folder), dtype="float32", device="cpu")
    tensors = load_file(classifier_folder / "model.safetensors")
    assert "score.weight" in tensors
    state = loaded.model.state_dict()
    assert {f"model.{n}" for n in state} == set(tensors) - {"score.weight"}
    assert all(torch.equal(t, tensors[f"model.{n}"]) for n, t in state.items())


def test_a_decoder_that_lacks_a_part_is_no_backbone(classifier_folder, tmp_path):
    """Nothing is filled in with random numbers."""
    folder = Path(shutil.copytree(classifier_folder, tmp_path / "c"))
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if n != "model.norm.weight"}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneError, match=r"lack norm\.weight, or hold another shape \(1 in all\): copy them again"):
        load_backbone(str(folder), dtype="float32", device="cpu")
    save_file(tensors | {"model.norm.weight": torch.ones(3)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneError, match=r"lack norm\.weight"):
        load_backbone(str(folder), dtype="float32", device="cpu")


def test_a_released_models_decoder_is_a_backbone(written, speaking):
    loaded = load_backbone(str(written), dtype="bfloat16", device="cpu")
    state = speaking.model.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in loaded.model.state_dict().items())


def test_a_sequence_head_scores_as_transformers_does(classifier_folder, speaker):
    head = SequenceHead("bt", str(classifier_folder), dtype="float32", device="cpu")
    assert isinstance(head, Scorer)
    assert head.name == "bt"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(classifier_folder).eval()
    wanted = []
    for conversation in TALKS:
        text = speaker.apply_chat_template(conversation, tokenize=False).replace("<|begin_of_text|>", "")
        with torch.no_grad():
            wanted.append(float(model(**speaker(text, return_tensors="pt")).logits))
    got = head.score(TALKS)
    assert np.ptp(wanted) > 1e-2
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    np.testing.assert_allclose(head.score(TALKS[::-1])[::-1], wanted, atol=1e-5)
    small = SequenceHead("bt", str(classifier_folder), dtype="float32", device="cpu", batch_tokens=20)
    np.testing.assert_allclose(small.score([*TALKS, TALKS[0]]), [*wanted, wanted[0]], atol=1e-5)
    assert head.score([]).shape == (0,)


def test_a_conversation_that_the_template_refuses_has_no_score(classifier_folder):
    head = SequenceHead("bt", str(classifier_folder), dtype="float32", device="cpu")
    head._renderer.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + llama3.TEMPLATE
    )
    scores = head.score(TALKS)
    assert np.isnan(scores).tolist() == [False, False, False, False, True]


def test_the_last_token_is_found_where_the_padding_token_ends_turns(classifier_folder, tmp_path):
    folder = Path(shutil.copytree(classifier_folder, tmp_path / "c"))
    change_config(folder, pad_token_id=128009)
    one, two = (SequenceHead("bt", str(f), dtype="float32", device="cpu").score(TALKS) for f in (classifier_folder, folder))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_folder_without_a_trained_head_is_refused(decoder_folder, classifier_folder, tmp_path):
    with pytest.raises(BackboneError, match=r"lack score\.weight .*random numbers"):
        SequenceHead("bt", str(decoder_folder))
    with pytest.raises(BackboneError, match="can't be loaded as a reward model with a sequence head"):
        SequenceHead("bt", str(tmp_path))
    folder = Path(shutil.copytree(classifier_folder, tmp_path / "c"))
    tensors = load_file(folder / "model.safetensors")
    tensors["score.weight"] = torch.ones(2, 16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    with pytest.raises(BackboneError, match="with 2 labels has no head of one logit"):
        SequenceHead("bt", str(folder))


# -- the command line --------------------------------------------------------------------------------------------------


def test_parts_in_model_out_and_in_again(armorm, decoder_folder, tmp_path):
    regression, gate, transform = public_files(tmp_path / "parts")
    words = ["import", "--regression", regression, "--gate", gate, "--transform", transform, "--backbone", decoder_folder]
    code, out, err = armorm(*words, "--out", tmp_path / "ours", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["gate_scale"] == 1.5
    assert len(facts["objectives"]) == 19
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "armorm"
    code, out, _ = armorm("export", tmp_path / "ours", tmp_path / "theirs", "--layout", "released", "--shard-size", "2MB")
    assert code == 0
    assert "released" in out
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) == 2
    code, _, _ = armorm("export", tmp_path / "theirs", tmp_path / "back")
    assert code == 0
    code, _, _ = armorm("export", tmp_path / "theirs", tmp_path / "wide", "--dtype", "float32")
    assert code == 0
    assert {t.dtype for t in load_file(tmp_path / "wide" / "model.safetensors").values()} == {torch.float32}
    models = [RewardModel.from_pretrained(tmp_path / name) for name in ("ours", "theirs", "back")]
    assert [m.config.model_type for m in models] == ["armorm"] * 3
    first, *others = ([s.to_json() for s in m.score(TALKS)] for m in models)
    assert others == [first, first]
    assert not list(tmp_path.glob(".*"))


def test_objectives_may_be_named(armorm, decoder_folder, tmp_path):
    regression, gate, _ = public_files(tmp_path / "parts", k=2)
    named = tmp_path / "objectives.json"
    named.write_text(json.dumps([{"name": n, "min": 0, "max": 4} for n in ("kind", "true")]))
    words = ["import", "--regression", regression, "--gate", gate, "--backbone", decoder_folder, "--objectives", named]
    code, _, err = armorm(*words, "--out", tmp_path / "ours", "--temperature", 2, "--dtype", "float32", "--max-tokens", 99)
    assert code == 0, err
    config = RewardModel.from_pretrained(tmp_path / "ours").config
    assert config.named_objectives.names == ("kind", "true")
    assert (config.gating_temperature, config.max_tokens, str(config.dtype)) == (2.0, 99, "torch.float32")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layout", "other"), "no layout 'other': use armorm or released"),
        (("--dtype", "int4"), "no dtype 'int4' for a decoder: use float32"),
        (("--shard-size", "big"), "shard_size 'big' is no size"),
        (("--shard-size", "9" * 500 + "GB"), "is no size"),
        (("--shard-size", "0GB"), "is no size"),
        (("--shard-size", "\u0665GB"), "is no size"),
        (("--layout", "released"), "can't be written in the released layout"),
    ],
)
def test_a_wrong_export_says_why_and_leaves_nothing(words, message, armorm, tmp_path):
    code, out, err = armorm("export", FOLDER, tmp_path / "out", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(armorm, tmp_path):
    (tmp_path / "notes").write_text("mine")
    code, _, err = armorm("export", FOLDER, tmp_path)
    assert code == 2
    assert "is there already and not empty" in err
    code, _, err = armorm("import", *("--regression", "r.pt", "--gate", "g.pt", "--backbone", "b", "--out", tmp_path))
    assert code == 2
    assert [f.name for f in tmp_path.iterdir()] == ["notes"]
    code, _, err = armorm("import", *("--regression", "r.pt", "--gate", "g.pt", "--backbone", "b", "--out", tmp_path / "o"))
    assert code == 2
    assert "r.pt: no such file" in err
    code, _, err = armorm(
        "import", *("--regression", "r.pt", "--gate", "g.pt", "--backbone", "b", "--out", tmp_path / "o", "--dtype", "int8")
    )
    assert code == 2
    assert "no dtype 'int8'" in err
