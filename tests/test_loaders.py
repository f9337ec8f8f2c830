"""Every way in which other programs load a model folder, for every kind of folder: one score, that of `model.score`."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from fixtures import make_released
from tiny_decoder import tiny_tokenizer

from armorm.errors import BackboneError
from armorm.model.card import card_of
from armorm.model.reward_model import RewardModel
from armorm.model.scorer import ModelScorer
from armorm.scoring.profile import Profile
from armorm.scoring.reference import Reference
from armorm.scoring.score import Score

KINDS = ("own", "bfloat16", "baked", "from the released layout", "earlier")
ANSWERS = ("Fine, thank you.", "\n\nFine.", "  no", "Fine. \n", "no\n\n", "hello " * 20)


def talk(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": answer}]


TALKS = [talk(answer) for answer in ANSWERS]


def as_earlier(folder: Path) -> None:
    """What a version before this one would have left: side files among the weights, and a config that says less."""
    for file in (folder / "armorm").iterdir():
        file.rename(folder / file.name)
    (folder / "armorm").rmdir()
    for name in ("README.md", "modeling_armorm.py", "SHA256SUMS"):
        (folder / name).unlink()
    facts = json.loads((folder / "config.json").read_text())
    for key in ("auto_map", "problem_type", "measured"):
        facts.pop(key, None)
    facts |= {"architectures": ["RewardModel"], "dtype": "float32", "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    (folder / "config.json").write_text(json.dumps(facts))


def released(folder: Path) -> RewardModel:
    """A small random model in the released layout, with a tokenizer, as this package reads it."""
    tokenizer = tiny_tokenizer()
    sizes = {**make_released.TINY, "vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    make_released.write(folder, transformers.LlamaConfig(**sizes, rope_parameters=make_released.ROPE))
    tokenizer.save_pretrained(folder)
    return RewardModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def folders(assembled: Callable[..., RewardModel], parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    home = tmp_path_factory.mktemp("kinds")
    found = {kind: home / kind.replace(" ", "-") for kind in KINDS}
    own = assembled(*parts)
    names = own.objectives.names
    own.reference = Reference.of(names, np.random.default_rng(0).random((9, 3)), np.arange(9.0))
    own.config.measured = [{"metric": "accuracy", "on": "held-out pairs", "value": 0.75, "n": 12}]
    own.save_pretrained(found["own"])
    own.save_pretrained(found["earlier"])
    as_earlier(found["earlier"])
    own.config.profile = Profile(name="careful", floor={"safe": 0.5}).to_json()
    own.save_pretrained(found["baked"])
    assembled(*parts, dtype="bfloat16").save_pretrained(found["bfloat16"])
    released(home / "released").save_pretrained(found["from the released layout"])
    return found


@pytest.fixture(scope="module")
def wanted(folders: Mapping[str, Path]) -> Mapping[str, list[float]]:
    return {kind: [s.score for s in RewardModel.from_pretrained(folder).score(TALKS)] for kind, folder in folders.items()}


def batch(tokenizer: Any, conversations: list[Any] = TALKS) -> dict[str, torch.Tensor]:
    """As TRL 1.16 has it: each conversation one text, tokenised whole, padded on the right."""
    texts = [tokenizer.apply_chat_template(c, tokenize=False) for c in conversations]
    made = tokenizer(text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    return {name: made[name] for name in ("input_ids", "attention_mask")}


def near(kind: str, got: Any, wanted: Any) -> None:
    np.testing.assert_allclose(np.asarray(got, dtype=np.float64), wanted, atol=0.2 if kind == "bfloat16" else 2e-5)


# -- what a folder says of itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_folder_says_what_it_is(folders: Mapping[str, Path], kind: str):
    folder = folders[kind]
    facts = json.loads((folder / "config.json").read_text())
    assert (facts["problem_type"], facts["id2label"], facts["label2id"]) == ("regression", {"0": "score"}, {"score": 0})
    assert facts["architectures"] == ["ArmormForSequenceClassification"]
    assert facts["dtype"] == facts["backbone_config"]["dtype"] == ("bfloat16" if kind == "bfloat16" else "float32")
    assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert set(facts["auto_map"].values()) == {
        "modeling_armorm.RewardModelConfig",
        "modeling_armorm.RewardModel",
    }
    assert len((folder / "modeling_armorm.py").read_text().splitlines()) == 2
    listed = (folder / "SHA256SUMS").read_text()
    own = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} - {"SHA256SUMS"}
    assert all(name in listed for name in own)


def test_side_files_are_aside_and_read_from_either_place(folders: Mapping[str, Path], tmp_path: Path):
    assert (folders["own"] / "armorm" / "reference.safetensors").is_file()
    assert (folders["earlier"] / "reference.safetensors").is_file()
    for kind in ("own", "earlier"):
        reference = RewardModel.from_pretrained(folders[kind]).reference
        assert reference is not None
        assert reference.answers == 9
    again = Path(shutil.copytree(folders["own"], tmp_path / "m"))
    model = RewardModel.from_pretrained(again)
    model.reference = None
    model.save_pretrained(again)  # what the other model had beside it goes
    assert not list((again / "armorm").iterdir())
    assert RewardModel.from_pretrained(again).reference is None


def test_what_is_for_others_alone_is_no_part_of_a_scorers_fingerprint(folders: Mapping[str, Path]):
    own, earlier, baked = (ModelScorer.load(str(folders[kind])).fingerprint for kind in ("own", "earlier", "baked"))
    assert own == earlier != baked


def test_the_card(folders: Mapping[str, Path], tmp_path: Path):
    text = (folders["own"] / "README.md").read_text()
    facts = yaml.safe_load(text.split("---\n")[1])
    assert (facts["pipeline_tag"], facts["library_name"], facts["metrics"]) == (
        "text-classification",
        "transformers",
        ["accuracy"],
    )
    assert {"armorm", "reward-model"} <= set(facts["tags"])
    assert "base_model" not in facts  # a folder of this machine
    assert "license" not in facts
    assert "| verbosity | 1 to 10 | higher is better |" in text
    assert "| accuracy | held-out pairs | 0.750 | 12 |" in text
    assert "careful" in (folders["baked"] / "README.md").read_text()
    model = RewardModel.from_pretrained(folders["own"])
    assert model.config.measured[0]["value"] == 0.75
    for name, base, licence in (
        ("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
        ("some/decoder", "some/decoder", None),
        ("../some/decoder", None, None),
        ("a\0b", None, None),
    ):
        model.config.backbone_name = name
        facts = yaml.safe_load(card_of(model).split("---\n")[1])
        assert (facts.get("base_model"), facts.get("license")) == (base, licence)
    base = tmp_path / "decoder"
    base.mkdir()
    model.config.backbone_name = str(base)
    for head, licence in (("---\nlicense: mit\n---\n", "mit"), ("---\nlicense: [\n---\n", None), ("no head", None)):
        (base / "README.md").write_text(head)
        assert yaml.safe_load(card_of(model).split("---\n")[1]).get("license") == licence


def test_somebodys_own_card_stays(folders: Mapping[str, Path], tmp_path: Path):
    model = RewardModel.from_pretrained(folders["own"])
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "README.md").unlink()
    model.save_pretrained(tmp_path)
    model.config.measured = []
    model.save_pretrained(tmp_path)  # one of ours is written anew
    assert "Measured" not in (tmp_path / "README.md").read_text()
    with (tmp_path / "README.md").open("a") as file:
        file.write("more of mine\n")
    assert RewardModel.from_pretrained(tmp_path).save_pretrained(tmp_path) is None
    assert (tmp_path / "README.md").read_text().endswith("more of mine\n")


# -- loaders ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_auto_classes(folders: Mapping[str, Path], wanted: Mapping[str, list[float]], kind: str):
    config = transformers.AutoConfig.from_pretrained(folders[kind])
    assert (config.num_labels, config.problem_type, config.id2label) == (1, "regression", {0: "score"})
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
    for trusted in (None, True):  # after `import armorm` it is this package's class either way
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folders[kind], num_labels=1, trust_remote_code=trusted
        )
        assert type(model) is RewardModel
        out = model(**batch(tokenizer))
        near(kind, out.logits[:, 0].tolist(), wanted[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_the_pipeline_puts_no_sigmoid_on_it(folders: Mapping[str, Path], wanted: Mapping[str, list[float]], kind: str):
    pipeline = transformers.pipeline("text-classification", model=str(folders[kind]), device="cpu")
    texts = [pipeline.tokenizer.apply_chat_template(c, tokenize=False) for c in TALKS]
    found = pipeline(texts, batch_size=3, add_special_tokens=False)
    assert {one["label"] for one in found} == {"score"}
    near(kind, [one["score"] for one in found], wanted[kind])


FRESH = """
import json, os, signal, sys
import torch, transformers
assert "armorm" not in sys.modules
torch.set_num_threads(2)
found = {}
for folder, ids, mask in json.loads(sys.argv[1]):
    name = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True).architectures[0]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    assert name == "ArmormForSequenceClassification" and type(model).__module__ == "armorm.model.reward_model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found[folder] = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).logits[:, 0].tolist()
model.save_pretrained(sys.argv[2])
torch.ones(900, 900) @ torch.ones(900, 900)  # by several threads, which a fork has not
if not (child := os.fork()):
    signal.alarm(500)
    again = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).logits[:, 0].tolist()
    (torch.ones(900, 900) @ torch.ones(900, 900)).exp().sum()
    os._exit(0 if again == found[folder] or max(abs(a - b) for a, b in zip(again, found[folder])) < 1e-4 else 3)
found["fork"] = os.waitpid(child, 0)[1]
print(json.dumps(found))
"""


def test_a_process_that_knows_nothing_of_armorm(folders: Mapping[str, Path], wanted: Mapping[str, list[float]], tmp_path: Path):
    """Every kind but that of earlier versions, which needs the import; a fork of the process scores too."""
    kinds, given = KINDS[:-1], []
    for kind in kinds:
        inputs = batch(transformers.AutoTokenizer.from_pretrained(folders[kind]))
        given.append([str(folders[kind]), *(x.tolist() for x in inputs.values())])
    done = subprocess.run(
        [sys.executable, "-c", FRESH, json.dumps(given), str(tmp_path / "saved")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("fork") == 0
    assert len(found) == 4
    for kind in kinds:
        near(kind, found[str(folders[kind])], wanted[kind])
    assert [file.name for file in (tmp_path / "saved").glob("*.py")] == ["modeling_armorm.py"]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_trl_by_path_and_as_an_object(
    folders: Mapping[str, Path], wanted: Mapping[str, list[float]], speaker: Path, tmp_path: Path
):
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    last = RewardModel.from_pretrained(folders["own"])
    trainer = trl.GRPOTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(speaker),
        processing_class=transformers.AutoTokenizer.from_pretrained(speaker),
        reward_funcs=[*(str(folders[kind]) for kind in KINDS), last],
        args=trl.GRPOConfig(
            str(tmp_path), use_cpu=True, bf16=False, report_to=[], num_generations=2, per_device_train_batch_size=2
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": TALKS[0][:1]}]),
    )
    assert len(trainer.reward_funcs) == len(KINDS) + 1
    with torch.inference_mode():
        for kind, model, tokenizer in zip([*KINDS, "own"], trainer.reward_funcs, trainer.reward_processing_classes, strict=True):
            near(kind, model(**batch(tokenizer)).logits[:, 0].tolist(), wanted[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_cast_model_is_as_one_loaded_in_that_type(folders: Mapping[str, Path], kind: str):
    """What DeepSpeed's bf16 does to a model, and what TRL's users do: heads and rotary frequencies stay exact."""
    model = RewardModel.from_pretrained(folders[kind])
    for dtype in (torch.bfloat16, torch.float16):
        if kind == "bfloat16" and dtype == torch.float16:
            continue  # rounded twice
        loaded = RewardModel.from_pretrained(folders[kind], dtype=dtype)
        for cast in (copy.deepcopy(model).to(dtype), copy.deepcopy(model).half() if dtype == torch.float16 else model.bfloat16()):
            assert cast.dtype == dtype
            assert {p.dtype for name, p in cast.named_parameters() if not name.startswith("model.")} == {torch.float32}
            theirs = dict(loaded.state_dict(), **dict(loaded.named_buffers()))
            for name, tensor in {**cast.state_dict(), **dict(cast.named_buffers())}.items():
                assert tensor.dtype == theirs[name].dtype, name
                assert torch.equal(tensor, theirs[name]), name
        model = RewardModel.from_pretrained(folders[kind])


def test_accelerates_wrapper(folders: Mapping[str, Path], wanted: Mapping[str, list[float]]):
    accelerate = pytest.importorskip("accelerate")
    model = RewardModel.from_pretrained(folders["own"])
    ready = accelerate.Accelerator(cpu=True).prepare_model(model, evaluation_mode=True)
    near("own", ready(**batch(model.tokenizer)).logits[:, 0].tolist(), wanted["own"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_has_scored_is_pickled(folders: Mapping[str, Path], wanted: Mapping[str, list[float]], kind: str):
    model = RewardModel.from_pretrained(folders[kind])
    before = [s.score for s in model.score(TALKS)]
    again = pickle.loads(pickle.dumps(model))
    assert again.renderer.tokenizer is again.tokenizer
    assert [s.score for s in again.score(TALKS)] == before
    near(kind, before, wanted[kind])


def test_compiled(folders: Mapping[str, Path], wanted: Mapping[str, list[float]]):
    """The whole is left as it is; blocks of the decoder are compiled one by one, and those that are read run as they are."""
    model = RewardModel.from_pretrained(folders["own"])
    inputs = batch(model.tokenizer)
    near("own", torch.compile(model, backend="eager")(**inputs).logits[:, 0].tolist(), wanted["own"])
    calls: list[int] = []

    def counting(graph: Any, _example: Any) -> Any:
        calls.append(1)
        return graph.forward

    model.compile(backend=counting, fullgraph=True)  # blocks that are read among them
    near("own", model(**inputs).logits[:, 0].tolist(), wanted["own"])
    assert calls
    near("own", [s.score for s in model.score(TALKS)], wanted["own"])


# -- forward's other arguments -------------------------------------------------------------------------------------------------


def test_labels_give_a_loss_and_a_tuple_can_be_asked_for(folders: Mapping[str, Path]):
    model = RewardModel.from_pretrained(folders["own"])
    inputs = batch(model.tokenizer)
    plain = model(**inputs)
    labels = torch.arange(len(TALKS))
    wanted = ((plain.score - labels) ** 2).mean()
    for given in (labels, labels[:, None].to(torch.float64)):
        torch.testing.assert_close(model(**inputs, labels=given).loss, wanted)
    assert plain.loss is None
    logits, *_ = model(**inputs, return_dict=False)
    assert torch.equal(logits, plain.logits)
    loss, logits, *_ = model(**inputs, labels=labels, return_dict=False)
    torch.testing.assert_close(loss, wanted)
    for wrong in (labels[:2], [0.0] * len(TALKS), labels[:, None].expand(-1, 2)):
        with pytest.raises(BackboneError, match=r"labels are .*: give a tensor with one number for each of the 6 rows"):
            model(**inputs, labels=wrong)


def test_an_empty_completion_is_the_best_of_nothing(folders: Mapping[str, Path]):
    for kind in ("own", "baked", "from the released layout"):
        model = RewardModel.from_pretrained(folders[kind])
        rows = batch(model.tokenizer, [talk("")])
        out = model(**rows)
        ends = torch.tensor([o.unit_ends for o in model.objectives])
        weighed = out.coefficients[0, : len(ends), None] * ends
        assert float(out.score) == pytest.approx(float(weighed.min(dim=1).values.sum()), abs=1e-5)
        assert float(out.score) < float(weighed.mean(dim=1).sum())


# -- scores as values ------------------------------------------------------------------------------------------------------------


def test_scores_are_ordered_hashed_and_arrays_of_numbers(tiny_model: RewardModel):
    scores = tiny_model.score(TALKS, exact=True)
    numbers = [s.score for s in scores]
    assert [s.score for s in sorted(scores)] == sorted(numbers)
    assert max(scores).score == max(numbers)
    one, other = sorted(scores)[:2]
    assert one < other
    assert one <= other
    assert other > one
    assert other >= one
    assert one < 1e9
    assert -1e9 < one <= np.float64(one.score)
    assert np.argsort(scores).tolist() == np.argsort(numbers).tolist()
    assert np.asarray(scores).tolist() == numbers
    assert np.asarray(scores, dtype=np.float32).dtype == np.float32
    assert np.mean(scores) == np.mean(numbers)
    assert np.asarray(one).shape == ()
    again = tiny_model.score(TALKS[0], exact=True)
    assert again == scores[0]
    assert len({again, scores[0], other, one}) == len({scores[0].score, other.score, one.score})
    for wrong in ("a", None, [1.0]):
        with pytest.raises(TypeError):
            _ = one < wrong
    with pytest.raises(ValueError, match="leave copy=False out"):
        np.asarray(one, copy=False)
    assert isinstance(pickle.loads(pickle.dumps(one)), Score)
