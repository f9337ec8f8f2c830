"""Training the decoder: what is planted is learnt, a resumed run equals an uninterrupted one, what is saved can be read."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from armorm.data.rows import PreferencePair, RatedResponse
from armorm.errors import FitError
from armorm.objectives import Objectives
from armorm.recipe import BackboneSettings
from armorm.rivals.pairwise import PairwiseModel
from armorm.rivals.sequence_head import SequenceHead
from armorm.tuning.loop import Job
from armorm.tuning.pairs import train_bradley_terry, train_pairwise
from armorm.tuning.regression import RatingCollator, masked_squared_error, train_regression
from armorm.tuning_settings import TuningSettings

GOOD, BAD = "fine thank you", "return x"
SETTINGS = {"steps": 12, "batch_size": 8, "micro_batch": 4, "learning_rate": 1e-2, "save_every": 4, "evaluate": 16}


def planted_pairs(n: int, seed: int) -> list[PreferencePair]:
    """Pairs whose better answer is the one that says the good words."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        texts = [" ".join([word] * draw.randint(2, 5)) for word in (GOOD, BAD)]
        context = ({"role": "user", "content": f"hello {i} + {seed} is?"},)
        rows.append(PreferencePair(f"p{seed}-{i}", f"g{seed}-{i}", "planted", context, *texts))
    return rows


@pytest.fixture
def backbone(tiny_folder: Path) -> BackboneSettings:
    return BackboneSettings(model=str(tiny_folder), dtype="float32", device="cpu", max_tokens=192)


@pytest.fixture
def speaking(speaker: Path) -> BackboneSettings:
    return BackboneSettings(model=str(speaker), dtype="float32", device="cpu", max_tokens=512)


def conversations(pairs: list[PreferencePair]) -> tuple[list, list]:
    return [p.conversation(p.chosen) for p in pairs], [p.conversation(p.rejected) for p in pairs]


def share_right(scorer: SequenceHead, pairs: list[PreferencePair]) -> float:
    chosen, rejected = conversations(pairs)
    return float((scorer.score(chosen) > scorer.score(rejected)).mean())


@pytest.mark.parametrize("lora", [{"rank": 4, "dropout": 0.1}, None], ids=["lora", "whole"])
def test_bradley_terry_learns_a_planted_order_and_is_read_back(backbone, tmp_path, lora):
    settings = TuningSettings(**SETTINGS | ({} if lora else {"learning_rate": 1e-3}), lora=lora)
    held_out = planted_pairs(40, 1)
    curve = train_bradley_terry(planted_pairs(96, 0), held_out[:16], Job(backbone, settings, tmp_path / "bt", tmp_path / "ck"))
    facts = curve.facts
    assert facts["steps"] == 12
    assert len(facts["curve"]) == 12
    assert [e["step"] for e in facts["evaluations"]] == [4, 8, 12]
    assert facts["tokens"] > 0
    assert facts["evaluations"][-1]["loss"] < math.log(2) / 2
    scorer = SequenceHead("bt", str(tmp_path / "bt" / "model"), dtype="float32", device="cpu")
    assert share_right(scorer, held_out) > 0.95
    assert (tmp_path / "bt" / "adapter" / "adapter_model.safetensors").exists() == (lora is not None)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft's, asked for by this test itself
def test_what_is_saved_scores_as_what_was_trained(backbone, tmp_path):
    settings = TuningSettings(**SETTINGS)
    train_bradley_terry(planted_pairs(32, 0), [], Job(backbone, settings, tmp_path / "bt", tmp_path / "ck"))
    from peft import PeftModel

    from armorm.rendering import Renderer
    from armorm.tuning.decoder import Decoder

    decoder = Decoder(backbone, "logits", ("reward",), 0)
    adapted = PeftModel.from_pretrained(decoder.load("float32"), str(tmp_path / "bt" / "adapter")).eval()
    renderer = Renderer(decoder.tokenizer, max_tokens=192)
    chosen, _ = conversations(planted_pairs(4, 3))
    with torch.no_grad():
        ids = [torch.tensor([renderer.render(c).ids]) for c in chosen]
        expected = [adapted(input_ids=i, attention_mask=torch.ones_like(i)).logits.item() for i in ids]
    merged = SequenceHead("bt", str(tmp_path / "bt" / "model"), dtype="float32", device="cpu")
    np.testing.assert_allclose(merged.score(chosen), expected, rtol=1e-3, atol=1e-3)


def test_the_trained_decoder_is_a_backbone(backbone, tmp_path):
    from armorm.features.backbone import load_backbone

    settings = TuningSettings(**SETTINGS | {"steps": 4})
    train_bradley_terry(planted_pairs(16, 0), [], Job(backbone, settings, tmp_path / "bt", tmp_path / "ck"))
    before, after = (load_backbone(m, dtype="float32", device="cpu") for m in (backbone.model, str(tmp_path / "bt" / "model")))
    assert after.layers == before.layers
    assert after.fingerprint != before.fingerprint
    assert after.tokenizer.chat_template == before.tokenizer.chat_template
    moved = [(a - b).abs().max() for a, b in zip(after.model.parameters(), before.model.parameters(), strict=True)]
    assert max(moved) > 0


def test_pairwise_learns_which_of_two_is_better_in_either_order(speaking, tmp_path):
    settings = TuningSettings(
        **SETTINGS | {"steps": 40, "batch_size": 8, "micro_batch": 8, "learning_rate": 2e-2, "save_every": 20}
    )
    held_out = planted_pairs(24, 1)
    curve = train_pairwise(planted_pairs(128, 0), held_out[:8], Job(speaking, settings, tmp_path / "pw", tmp_path / "ck"))
    assert "accuracy" in curve.evaluations[-1]
    model = PairwiseModel("pw", str(tmp_path / "pw" / "model"), dtype="float32", device="cpu", max_tokens=512)
    found = model.prefer(list(zip(*conversations(held_out), strict=True)))
    assert (found.forward > 0.5).mean() > 0.9
    assert (found.backward > 0.5).mean() > 0.9


def test_a_pairwise_step_sees_both_orders_of_its_pairs(speaking):
    """A liking for one place alone can't lower the loss: each pair has one row for A and one for B, and the same texts."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from armorm.rivals.pairwise import IGNORED, PairRenderer
    from armorm.tuning.decoder import Decoder
    from armorm.tuning.examples import comparison_examples
    from armorm.tuning.pairs import BothOrders

    tokenizer = Decoder(speaking, "words").tokenizer
    renderer = PairRenderer(tokenizer, max_tokens=512)
    pairs = planted_pairs(3, 0)
    batch = BothOrders(DataCollatorForLanguageModeling(tokenizer.pad_token_id))(list(comparison_examples(pairs, renderer)))
    assert batch["input_ids"].shape == batch["labels"].shape
    assert len(batch["labels"]) == 6
    assert batch["labels"][batch["labels"] != IGNORED].tolist() == [*renderer.verdict_ids] * 3
    lengths = batch["attention_mask"].sum(dim=1)
    assert lengths[::2].tolist() == lengths[1::2].tolist()
    for row, length, pair in zip(batch["input_ids"][::2], lengths[::2], pairs, strict=True):
        shown = tokenizer.decode(row[:length])
        assert shown.index(pair.chosen) < shown.index(pair.rejected)


def rated(n: int, seed: int, objectives: Objectives) -> list[RatedResponse]:
    """Ratings that follow the share of good words; each row lacks one of the two objectives."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        good, words = draw.randint(0, 6), 6
        text = " ".join(draw.sample([GOOD] * good + [BAD] * (words - good), words))
        messages = ({"role": "user", "content": f"hello {i} is?"}, {"role": "assistant", "content": text})
        values = {"quality": 4 * good / words, "badness": 10 - 10 * good / words}
        del values[("quality", "badness")[i % 2]]
        rows.append(RatedResponse(f"r{seed}-{i}", f"g{seed}-{i}", "planted", messages, values))
    return rows


@pytest.fixture
def objectives() -> Objectives:
    return Objectives.from_json([{"name": "quality", "min": 0, "max": 4}, {"name": "badness", "min": 0, "max": 10}])


def test_regression_learns_ratings_that_are_never_there_together(backbone, objectives, tmp_path):
    settings = TuningSettings(**SETTINGS | {"steps": 30, "batch_size": 16, "micro_batch": 8, "save_every": 30})
    held_out = rated(60, 1, objectives)
    rows = rated(160, 0, objectives)
    curve = train_regression(rows, held_out[:16], objectives, Job(backbone, settings, tmp_path / "mo", tmp_path / "ck"))
    assert curve.evaluations[-1]["loss"] < 0.05  # ratings that are uniform on [0, 1] have a variance of 0.11
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "mo" / "model")
    assert model.config.id2label == {0: "quality", 1: "badness"}
    predicted, truth = _predicted(model, held_out, backbone)
    assert np.corrcoef(predicted[:, 0], truth)[0, 1] > 0.8
    assert np.corrcoef(predicted[:, 1], truth)[0, 1] < -0.8


def _predicted(model, rows, backbone):
    from armorm.rendering import Renderer
    from armorm.tuning.decoder import Decoder

    renderer = Renderer(Decoder(backbone, "words").tokenizer, max_tokens=192)
    with torch.no_grad():
        found = [model(input_ids=torch.tensor([renderer.render(r.messages).ids])).logits[0].tolist() for r in rows]
    return np.array(found), [r.messages[-1]["content"].count(GOOD) for r in rows]


class Stopped(Exception):  # noqa: N818 - what happened to the run
    pass


@pytest.mark.parametrize("objective", ["bradley-terry", "pairwise", "regression"])
def test_a_resumed_run_equals_an_uninterrupted_one(speaking, objectives, tmp_path, objective):
    """Dropout, shuffling, schedule and optimiser go on as if nothing had happened."""
    settings = TuningSettings(**SETTINGS | {"steps": 9, "learning_rate": 1e-3}, lora={"rank": 4, "dropout": 0.2})
    pairs, ratings = planted_pairs(40, 0), rated(40, 0, objectives)

    def run(name: str, stop_after: int | None = None):
        def progress(done: int, _total: int, _note: str) -> None:
            if done == stop_after:
                raise Stopped

        job = Job(speaking, settings, tmp_path / name, tmp_path / f"{name}.checkpoints", 3, progress)
        if objective == "regression":
            return train_regression(ratings, ratings[:8], objectives, job)
        train = train_pairwise if objective == "pairwise" else train_bradley_terry
        return train(pairs, pairs[:8], job)

    whole = run("whole")
    with pytest.raises(Stopped):
        run("cut", stop_after=6)
    kept = sorted(p.name for p in (tmp_path / "cut.checkpoints").iterdir() if p.name.startswith("checkpoint"))
    assert kept == ["checkpoint-4"]
    resumed = run("cut")
    assert [s["step"] for s in resumed.steps] == [s["step"] for s in whole.steps] == list(range(1, 10))
    np.testing.assert_allclose([s["loss"] for s in resumed.steps], [s["loss"] for s in whole.steps], atol=1e-6)
    assert resumed.facts["tokens"] == whole.facts["tokens"]
    weights = [transformers.AutoModel.from_pretrained(tmp_path / n / "model") for n in ("whole", "cut")]
    for a, b in zip(*(w.parameters() for w in weights), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_the_masked_loss_and_its_gradient_equal_the_reference():
    """Against a loop over the ratings that are there, and finite differences."""
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    ratings = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    ratings[[0, 1, 2, 4], [0, 2, 1, 0]] = float("nan")
    ratings[3] = float("nan")
    loss = masked_squared_error(predictions, ratings)
    there = [(i, j) for i in range(5) for j in range(3) if not math.isnan(ratings[i, j])]
    reference = sum((predictions[i, j].item() - ratings[i, j].item()) ** 2 for i, j in there) / len(there)
    assert loss.item() == pytest.approx(reference, rel=1e-6)
    loss.backward()
    expected = torch.zeros(5, 3, dtype=torch.float64)
    for i, j in there:
        expected[i, j] = 2 * (predictions[i, j] - ratings[i, j]).item() / len(there)
    torch.testing.assert_close(predictions.grad, expected, rtol=1e-5, atol=1e-7)
    assert torch.autograd.gradcheck(
        lambda p: masked_squared_error(p, ratings).double(), predictions.detach().requires_grad_(), eps=1e-3, atol=1e-3
    )


def test_a_step_is_the_same_however_it_is_split(backbone, objectives, tmp_path):
    """The mean is over the step's ratings, not over the micro-batches' means."""
    rows = rated(8, 0, objectives)
    rows[0] = RatedResponse(rows[0].id, rows[0].group, "planted", rows[0].messages, {"quality": 4.0, "badness": 0.0})
    losses = []
    for micro in (1, 8):
        settings = TuningSettings(
            **SETTINGS | {"steps": 3, "batch_size": 8, "micro_batch": micro}, lora={"rank": 2, "dropout": 0}
        )
        out = tmp_path / f"m{micro}"
        curve = train_regression(rows, [], objectives, Job(backbone, settings, out, tmp_path / f"ck{micro}"))
        losses.append([s["loss"] for s in curve.steps])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_adapters_that_take_inputs_as_they_are_learn_the_same(backbone, tmp_path, monkeypatch):
    """In bfloat16, where it saves a cast there and back in every layer: to the last bit."""
    from contextlib import nullcontext

    from armorm.tuning import loop

    half = backbone.model_copy(update={"dtype": "bfloat16"})
    settings = TuningSettings(**SETTINGS | {"steps": 3, "learning_rate": 1e-3})
    losses = []
    for name, casts in (("without", loop._inputs_as_they_are), ("with", lambda _model: nullcontext())):
        monkeypatch.setattr(loop, "_inputs_as_they_are", casts)
        curve = train_bradley_terry(planted_pairs(24, 0), [], Job(half, settings, tmp_path / name, tmp_path / f"{name}.ck"))
        losses.append([s["loss"] for s in curve.steps])
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 3


def test_rows_without_any_rating_do_not_break_a_batch():
    collated = RatingCollator(0)([{"input_ids": [1, 2], "labels": [None, 0.5]}, {"input_ids": [3], "labels": [None, None]}])
    assert collated["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert torch.isnan(collated["labels"]).tolist() == [[True, False], [True, True]]
    nothing = masked_squared_error(torch.ones(1, 2, requires_grad=True), torch.full((1, 2), float("nan")))
    assert nothing.item() == 0


def test_a_batch_that_the_processes_cannot_share_is_refused():
    with pytest.raises(ValueError, match="multiple of micro_batch"):
        TuningSettings(batch_size=6, micro_batch=4)


def test_padding_never_is_the_token_that_ends_an_answer(tiny_folder, tmp_path, new_tokenizer):
    """A head that looks for the last token that is no padding would miss it."""
    from armorm.tuning.decoder import Decoder

    tokenizer = new_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
    tokenizer.pad_token = "<|im_end|>"
    transformers.AutoModel.from_pretrained(tiny_folder).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = Decoder(BackboneSettings(model=str(tmp_path), dtype="float32"), "words").tokenizer
    assert found.pad_token != "<|im_end|>"


def test_a_decoder_without_a_language_head_cannot_compare(tmp_path, random_folder):
    folder = random_folder(
        transformers.LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    )
    from armorm.errors import BackboneError
    from armorm.tuning.decoder import Decoder

    with pytest.raises(BackboneError, match="lm_head"):
        Decoder(BackboneSettings(model=str(folder), dtype="float32"), "words").load("float32")


def test_a_loss_that_is_no_number_stops_the_run(backbone, objectives, tmp_path):
    settings = TuningSettings(**SETTINGS | {"warmup": 0}, lora=None).model_copy(update={"learning_rate": 1e30})
    with pytest.raises(FitError, match="learning_rate"):
        train_regression(rated(16, 0, objectives), [], objectives, Job(backbone, settings, tmp_path / "out", tmp_path / "ck"))


def test_the_head_starts_as_the_ridge_probe(backbone, objectives):
    """Against scikit-learn's ridge on the same states; the decoder is not touched."""
    from sklearn.linear_model import Ridge

    from armorm.rendering import Renderer
    from armorm.tuning import regression
    from armorm.tuning.decoder import Decoder, load_trainable
    from armorm.tuning.examples import rating_examples
    from armorm.tuning_settings import Lora

    decoder = Decoder(backbone, "logits", objectives.names, 0)
    model = load_trainable(decoder, Lora(rank=2))
    before = {n: p.clone() for n, p in model.named_parameters() if "score." not in n}
    examples = rating_examples(rated(120, 0, objectives), objectives, Renderer(decoder.tokenizer, max_tokens=192))
    regression.start_at_the_probe(model, examples, objectives, seed=0)
    states = regression.read_last_states(model, examples["input_ids"])
    labels = np.array(examples["labels"], dtype=float)
    weights = regression.head_of(model).detach().numpy()
    for column in range(2):
        there = ~np.isnan(labels[:, column])
        fits = [Ridge(a, fit_intercept=False).fit(states[there], labels[there, column]).coef_ for a in regression.ALPHAS]
        assert min(np.abs(weights[column] - w).max() for w in fits) < 1e-3 * np.abs(weights[column]).max()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if "score." not in n)
    assert model.training


def test_states_do_not_depend_on_the_batch(backbone, objectives):
    from armorm.tuning import regression
    from armorm.tuning.decoder import Decoder

    model = Decoder(backbone, "logits", ("x",), 0).load("float32")
    ids = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14]]
    together = regression.read_last_states(model, ids)
    alone = np.concatenate([regression.read_last_states(model, [row]) for row in ids])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_training_begins_below_the_ratings_own_variance(backbone, objectives, tmp_path):
    """A random head would begin far above it."""
    settings = TuningSettings(**SETTINGS | {"steps": 1})
    curve = train_regression(rated(160, 0, objectives), [], objectives, Job(backbone, settings, tmp_path / "o", tmp_path / "c"))
    assert curve.steps[0]["loss"] < 0.1
