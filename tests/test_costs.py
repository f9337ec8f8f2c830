"""What a run costs on paper: formulas against numbers made by hand, and a dry run that says them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from small_run import Armorm, write_recipe

from armorm.features import backbone
from armorm.recipe import Suite, load_recipe
from armorm.report.costs import costs_report
from armorm.run.costs import (
    DECODERS,
    GPUS,
    IDLE,
    Decoder,
    GateSizes,
    Sizes,
    Work,
    about,
    decoder_operations,
    gpu_hours,
    gpus_needed,
    work_of,
)
from armorm.run.plan import plan
from armorm.run.pricing import _decoder
from armorm.run.rates import machine_rates
from armorm.run.rows import read_rows

GATE = GateSizes(hidden=8, layers=2, steps=10, batch=4, seeds=1, evaluations=2)
SIZES = Sizes(
    rated=100,
    pairs=50,
    benched=30,
    benched_prompts=10,
    tokens=1000,
    length=5,
    stored_answer=32,
    stored_prompt=16,
    bytes_each=2,
    width=16,
    prompt=16,
    candidates=1,
    objectives=3,
    patterns=2,
    folds=5,
    strengths=13,
    validation=0.1,
    gate=GATE,
)
TINY = Decoder("tiny", parameters=1000, layers=2, width=16)


def works(sizes: Sizes = SIZES, decoder: Decoder | None = TINY) -> dict[str, Work]:
    return {work.stage: work for work in work_of(sizes, decoder)}


def test_a_decoder_takes_two_operations_a_weight_and_token_and_attention():
    assert decoder_operations(TINY, 1000, 5) == 1000 * (2 * 1000 + 2 * 2 * 16 * 5)
    eight = DECODERS[0]
    assert decoder_operations(eight, 1, 0) == 13.96e9
    assert decoder_operations(eight, 1, 4096) - decoder_operations(eight, 1, 0) == 2 * 32 * 4096 * 4096


def test_features_take_a_vector_for_each_answer_and_prompt():
    found = works()["features"]
    answers, prompts = 100 + 2 * 50 + 30, 100 + 50 + 10
    assert found.disk == (answers * 32 + prompts * 16) * 2
    assert found.operations == {"decoder": 1000 * (2000 + 320)}
    assert found.memory == IDLE + 2000


def test_the_papers_features_are_as_large_as_its_recipe_says():
    """585,000 ratings and 785,000 pairs, 4,096 wide, bfloat16."""
    paper = dataclasses.replace(
        SIZES, rated=585_000, pairs=785_000, benched=0, benched_prompts=0, stored_answer=4096, stored_prompt=4096
    )
    assert about(works(paper)["features"].disk) == 2.9e10


def test_the_probe_sums_and_solves():
    found = works()["probe"]
    assert found.operations == {"float64": 100 * 16 * 16 + 2 * 100 * 16 * 3 + 2 * 11 * 9 * 16**3}
    assert (found.reads, found.disk) == (100 * 16 * 2, 2 * 5 * 4 * 16 * 17)
    assert found.memory == IDLE + 10 * 8 * 16 * 16
    wide = works(dataclasses.replace(SIZES, width=4096, candidates=3))["probe"].operations
    assert wide == {
        "float32": 3 * (100 * 4096**2 + 2 * 100 * 4096 * 3),
        "float64": pytest.approx(3 * 2 * 11 * 13 * 4096**3 / 3),
    }


def test_the_gate_learns_twice_forward_and_back():
    weights = 16 * 8 + 8 * 8 + 8 * 3
    assert GATE.parameters(16, 3) == weights
    found = works()["gate"]
    assert found.operations == {
        "float32": pytest.approx(2 * (6 * 10 * 4 + 2 * 2 * 5) * weights),
        "float64": 2 * 4 * 50 * 16 * 3,
    }
    assert found.disk == 8 * weights


def test_seconds_are_operations_over_rates_and_bytes_over_theirs():
    work = Work("s", {"float64": 10.0, "float32": 30.0}, reads=8, disk=0, memory=0)
    assert work.seconds({"float64": 5, "float32": 10, "read": 4}) == 2 + 3 + 2
    assert work.seconds({"float64": 5, "read": 4}) is None
    assert works(decoder=None)["features"].seconds({"read": 1.0}) is None
    assert works(decoder=None)["model"].memory is None


def test_twice_the_rows_are_twice_the_work_of_every_pass():
    more = works(dataclasses.replace(SIZES, rated=200, pairs=100, benched=60, benched_prompts=20, tokens=2000))
    for stage, work in works().items():
        assert more[stage].reads <= 2 * work.reads
        for precision, count in (work.operations or {}).items():
            assert count < (more[stage].operations or {})[precision] <= 2 * count, stage


def test_hours_and_numbers_of_gpus():
    a100, h100, l40s = GPUS
    eight, seventy = DECODERS
    sizes = dataclasses.replace(SIZES, tokens=1e9, length=500)
    by_hand = 1e9 * (2 * 6.98e9 + 2 * 32 * 4096 * 500) / (0.4 * 312e12) / 3600
    assert gpu_hours(eight, a100, sizes) == pytest.approx(by_hand)
    assert gpu_hours(eight, h100, sizes) == pytest.approx(by_hand * 312 / 989)
    assert [gpus_needed(eight, gpu) for gpu in GPUS] == [1, 1, 1]
    assert [gpus_needed(seventy, gpu) for gpu in (a100, h100, l40s)] == [3, 3, 4]


@pytest.mark.parametrize(("value", "said"), [(1234.0, 1200.0), (0.0567, 0.057), (0.0, 0.0), (9.96e9, 1e10)])
def test_about_is_two_digits(value: float, said: float):
    assert about(value) == said


def test_rates_are_measured():
    assert all(rate > 1e6 for rate in machine_rates().values())


def test_a_dry_run_says_what_each_stage_costs(armorm: Armorm, rows: Path, tiny_folder: Path):
    code, out, err = armorm("train", write_recipe(rows, tiny_folder), "--dry-run", "--json")
    assert (code, err) == (0, "")
    costs = json.loads(out)["costs"]
    assert (costs["rated"], costs["pairs"], costs["answers"]) == (118, 78, 118 + 156 + 48)
    assert 5_000 < costs["tokens"] < 40_000
    assert [stage["stage"] for stage in costs["stages"]] == [
        "features",
        "probe",
        "uncertainty",
        "debias",
        "gate",
        "preference",
        "model",
        "bench",
    ]
    assert all(stage["seconds"] > 0 for stage in costs["stages"])
    assert costs["assumed"] == []
    assert {(one["decoder"], one["gpu"]) for one in costs["gpus"]} == {(d.name, g.name) for d in DECODERS for g in GPUS}
    code, out, _ = armorm("train", write_recipe(rows, tiny_folder), "--dry-run")
    said = " ".join(out.split())
    assert "costs here, about: 118 ratings, 78 pairs" in said
    assert "L40S" in said


def test_a_decoder_of_few_positions_is_timed_on_as_many(rows: Path, random_folder: Callable[..., Path]):
    at = random_folder(transformers.GPT2Config(n_positions=64, n_embd=32, n_layer=3, n_head=2))
    recipe = write_recipe(rows, at, backbone={"model": str(at), "max_tokens": 64})
    assert plan(recipe, priced=True)["costs"]["stages"][0]["seconds"] > 0
    decoder = _decoder(load_recipe(recipe), [])
    known = transformers.AutoConfig.from_pretrained(at).vocab_size
    assert decoder is not None
    assert decoder.parameters == 3 * (12 * 32 * 32 + 13 * 32)
    assert decoder.others == known * 32 + 64 * 32 + 64  # tokens' and positions' vectors, the last norm
    assert decoder.bytes == 4 * (decoder.parameters + decoder.others)


@pytest.mark.parametrize("model", ["smollm2", "some.gguf"])
def test_a_dry_run_converts_nothing(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str):
    gguf = tmp_path / "some.gguf"
    gguf.write_bytes(b"GGUF")
    monkeypatch.setattr(backbone, "_embedded_gguf", lambda: gguf)
    monkeypatch.setattr(backbone, "user_cache_path", lambda _name: tmp_path / "cache")
    monkeypatch.setattr(backbone, "_convert", lambda *_: pytest.fail("a decoder was converted"))
    named = model if model == "smollm2" else str(gguf)
    found = plan(write_recipe(rows, tmp_path, backbone={"model": named}), priced=True)
    assert found["not checked"] == f"layers, positions and chat template of {named}: it is converted when it is first used"
    assert found["costs"]["stages"][0]["seconds"] is None
    assert any("is converted when it is first used" in line for line in found["costs"]["assumed"])
    assert not (tmp_path / "cache").exists()


def test_rows_that_a_benchmark_takes_away_are_not_planned(rows: Path, tiny_folder: Path):
    planned = {row["source"]: row for row in plan(write_recipe(rows, tiny_folder))["rows"]}
    recipe = load_recipe(write_recipe(rows, tiny_folder))
    read = {facts.name: facts for facts in read_rows(recipe, recipe.load_objectives()).facts}
    assert {name: row["rows"] for name, row in planned.items()} == {name: len(facts.rows) for name, facts in read.items()}
    assert any("prompt-in-benchmark" in row["left out"] for row in planned.values())


@pytest.mark.parametrize(("place", "known"), [({"hub": "some/bench"}, False), ({"source": "hh-rlhf"}, True)])
def test_a_benchmark_that_is_not_here_is_counted_or_said_to_be_left_out(
    rows: Path, tiny_folder: Path, tmp_path: Path, place: dict[str, str], known: bool
):
    whole = load_recipe(write_recipe(rows, tiny_folder))
    far = Suite.model_validate({"name": "far", "source": place})
    recipe = whole.model_copy(update={"bench": [*whole.bench, far]})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    costs = plan(tmp_path / "recipe.yaml", priced=True)["costs"]
    assert (costs["answers"] > 10_000) == known
    assert any("1 sources, whose size is not published here" in line for line in costs["assumed"]) != known


def test_what_is_not_here_is_said_to_be_assumed(armorm: Armorm):
    recipe = Path(__file__).parents[1] / "recipes" / "armorm-llama3-8b.yaml"
    code, out, _ = armorm("train", recipe, "--dry-run", "--json")
    assert code == 0
    costs = json.loads(out)["costs"]
    assert costs["rated"] > 200_000
    assert len(costs["assumed"]) == 2
    assert costs["stages"][0] | {"disk": 0} == {"stage": "features", "seconds": None, "disk": 0, "memory": None}
    shown = {grid.name: [[cell.text for cell in row] for row in grid.rows] for grid in costs_report(costs).grids}
    assert shown["stages"][0][1] == "–"
    assert len(shown["gpus"]) == 6
