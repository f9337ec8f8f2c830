"""What a dry run accepts, a run can do: recipes that mean nothing are refused, the others end, well or with an error of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import OBJECTIVES, write_lines, write_recipe, write_rows

from armorm.errors import ArmormError
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.run.plan import plan
from armorm.run.train import Run, train

LONG = "9" * 6000
INF, NAN = float("inf"), float("nan")


def _of(part: str, key: str, *values: Any) -> list[dict[str, Any]]:
    return [{part: {key: value}} for value in values]


REFUSED: list[dict[str, Any]] = [
    *_of("gate", "temperature", 1e-300, 1e300, INF, NAN, 1e-46, 0, -1),
    *_of("gate", "scale_init", NAN, INF, 0, -100, 1e-46),
    *_of("gate", "learning_rate", 1e30, INF, NAN, 0, -1),
    *_of("gate", "scale_learning_rate", NAN, INF, 1e30),
    *_of("gate", "weight_decay", INF, NAN, 1e30, -1),
    *_of("gate", "dropout", NAN, 1, -0.1),
    *_of("gate", "hidden", 2**70, 0, 1e3 + 0.5),
    *_of("gate", "hidden_layers", 2**70, -1),
    *_of("gate", "steps", 2**70, 0, INF),
    *_of("gate", "batch_size", 2**70),
    *_of("gate", "seeds", 2**70, 0),
    {"gate": {"learning_rate": 1, "weight_decay": 10}},
    *_of("probe", "alphas", [1e-300], [1e308], [INF], [NAN], [0], []),
    *_of("probe", "folds", 2**70, 1),
    *({"seed": seed} for seed in (-1, 2**32, 2**70, NAN, 0.5)),
    *_of("splits", "validation", NAN, INF, -0.1, 1),
    *_of("features", "shard_rows", 0, 2**70),
    *_of("features", "batch_tokens", 0, 2**70),
    *_of("features", "response", ["99:mean"], ["9" * 5000 + ":mean"], []),
    *_of("features", "prompt", "4:last"),
    *_of("backbone", "device", "cuda:99", "nonsense", "meta", "", "cpu:x"),
    *_of("backbone", "max_tokens", 2**70, 15, 513),
    *_of("backbone", "chat_template", "/dev/zero", "/", "~nobody9/x.jinja", "a\0b"),
    *({"name": name} for name in ("../../victim", "/tmp/victim", "x" * 300, "a/b", "a\\b", ".", "..", "", " ", "a\nb", "ü" * 51)),
    {"examples": 2**70},
    {"debias": {"nuisances": ["nobody"]}},
    {"tuning": {"learning_rate": NAN}},
    {"tuning": {"epochs": INF}},
    {"tuning": {"lora": {"alpha": NAN}}},
    {"tuning": {"lora": {"rank": 2**70}}},
    {"tuning": {"steps": 2**70}},
    {"compare": {"judges": [{"name": "../j", "local": "smollm2"}]}},
    {"compare": {"judges": [{"name": "J 1", "local": "smollm2"}, {"name": "j-1", "local": "smollm2"}]}},
    {"compare": {"judges": [{"name": "j", "model": "m", "timeout": INF}]}},
    {"compare": {"fixed_weights": [{"name": "w", "weights": {"panel-quality": NAN}}]}},
    {"scale_map": {"*": "nonsense"}},
    {"objectives": [{"name": "panel-quality", "min": 0, "max": INF}]},
    {"objectives": [{"name": "panel-quality", "min": 1e308, "max": 1.1e308}]},
    {"objectives": [{"name": "panel-quality", "categories": {"a": NAN, "b": 1}}]},
    {"objectives": [{"name": "panel-quality", "categories": ["a"]}]},
]

RUN: list[dict[str, Any]] = [
    *_of("gate", "temperature", 1e-3, 1e3),
    *_of("gate", "scale_init", 1e-3, 1e6),
    {"gate": {"learning_rate": 1, "scale_learning_rate": 1e3, "steps": 60, "patience": None}},
    {"gate": {"learning_rate": 1e-300, "weight_decay": 100}},
    {"gate": {"hidden": 1, "hidden_layers": 0, "batch_size": 10**8, "evaluate_every": 10**8}},
    {"gate": {"dropout": 0.999}},
    *_of("probe", "alphas", [1e-12], [1e15], [1e-12, 1e15]),
    *_of("probe", "folds", 2, 40, 1000),
    *({"seed": seed} for seed in (2**32 - 1,)),
    {"splits": {"validation": 0.79, "test": 0.2}},
    {"splits": {"validation": 0.0, "test": 0.0}},
    {"splits": {"validation": 0.0, "test": 0.97}},
    {"debias": {"nuisances": [o["name"] for o in OBJECTIVES]}},
    {"debias": {"nuisances": ["panel-verbosity", "response-tokens"], "method": "pearson", "itself": "kept"}},
    {"objectives": OBJECTIVES[:1], "debias": {"nuisances": ["panel-quality"]}, "ratings": "panel"},
]


def _merged(rows: Path, changes: dict[str, Any]) -> dict[str, Any]:
    changes = dict(changes)
    if changes.get("ratings") == "panel":
        changes["ratings"] = [{"path": str(rows / "ratings-panel.jsonl")}]
    return changes


@pytest.fixture(scope="module")
def own_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile-rows")
    write_rows(folder)
    return folder


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


def ends(recipe: Path, folder: Path, features: Path) -> Run | str:
    """The run, or the error of ours that it ends with; any other error fails the test."""
    try:
        return train(load_recipe(recipe), folder / "run", features=features, reporter=Reporter(quiet=True))
    except ArmormError as error:
        return str(error)


def as_planned(recipe: Path, folder: Path, features: Path) -> Run | str:
    """The same; what the dry run refuses, the run refuses with the same words, before it makes a feature."""
    refused = ""
    try:
        plan(recipe)
    except ArmormError as error:
        refused = str(error)
    found = ends(recipe, folder, folder / "features" if refused else features)
    assert found == refused or not refused
    assert not (folder / "features").exists()
    return found


def only_numbers(run: Run) -> bool:
    text = (run.folder / "report" / "results.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in results.json"))
    return True


def test_there_are_enough_of_them():
    assert len(REFUSED) >= 90
    assert len(RUN) >= 15


@pytest.mark.parametrize("changes", REFUSED, ids=lambda c: str(c)[:60].encode("ascii", "backslashreplace").decode())
def test_what_means_nothing_is_refused_before_anything_runs(
    changes: dict[str, Any], own_rows: Path, tiny_folder: Path, tmp_path: Path
):
    path = write_recipe(own_rows, tiny_folder, **_merged(own_rows, changes))
    copy = tmp_path / "recipe.yaml"
    copy.write_bytes(path.read_bytes())
    with pytest.raises(ArmormError) as caught:
        plan(copy)
    said = str(caught.value)
    assert len(said) < 2000
    assert any(word in said for word in (next(iter(changes)), "device", "layer", "max_tokens", ", line ")), said


LONG_WORD = "x" * 100_000


@pytest.mark.parametrize(
    "changes",
    [
        {"name": LONG_WORD},
        {LONG_WORD: 1},
        {"seed": LONG_WORD},
        {"backbone": {"model": "./" + LONG_WORD}},
        {"backbone": {"chat_template": LONG_WORD}},
        {"objectives": LONG_WORD},
        {"objectives": [{"name": LONG_WORD, "min": 1, "max": 0}]},
        {"ratings": [LONG_WORD]},
        {"ratings": [{"path": LONG_WORD}]},
        {"ratings": [{"path": "~nobody9/x.jsonl"}]},
        {"pairs": [{"path": "a/" * 5000}]},
        {"backbone": {"model": "~nobody9/model"}},
        {"ratings": [{"hub": LONG_WORD}]},
        {"bench": [LONG_WORD]},
        {"features": {"response": [LONG_WORD]}},
        {"debias": {"nuisances": [LONG_WORD]}},
        {f"unknown-{i}": i for i in range(5000)},
    ],
    ids=lambda c: str(c)[:40],
)
def test_an_error_does_not_repeat_a_value_without_end(changes: dict[str, Any], own_rows: Path, tiny_folder: Path, tmp_path: Path):
    copy = tmp_path / "recipe.yaml"
    copy.write_bytes(write_recipe(own_rows, tiny_folder, **changes).read_bytes())
    with pytest.raises(ArmormError) as caught:
        plan(copy)
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize("changes", RUN, ids=lambda c: str(c)[:60])
def test_what_the_dry_run_takes_ends_well_or_with_an_error_of_ours(
    changes: dict[str, Any], own_rows: Path, tiny_folder: Path, tmp_path: Path, features: Path
):
    path = write_recipe(own_rows, tiny_folder, **_merged(own_rows, changes))
    found = as_planned(path, tmp_path, features)
    if isinstance(found, Run):
        assert only_numbers(found)
        from armorm.model.reward_model import RewardModel

        model = RewardModel.from_pretrained(found.folder / "model")
        score = model.score([{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine"}])
        assert np.isfinite(score.score)
        assert float(model.gating.logit_scale) > 0
    else:
        assert len(found) < 2000
        assert not (tmp_path / "run" / "model").exists() or "Bradley" in found


@pytest.mark.parametrize("n", [1, 2, 3, 8, 20])
def test_few_rows_end_well_or_with_an_error_of_ours(n: int, tiny_folder: Path, tmp_path: Path, features: Path):
    rows = [{"prompt": f"hello {i}", "response": "fine " * (i % 3 + 1), "panel-quality": i % 5} for i in range(n)]
    pairs = [{"prompt": f"hi {i}", "chosen": "fine thank you", "rejected": "return x" * (i % 2 + 1)} for i in range(n)]
    write_lines(tmp_path / "ratings-own.jsonl", rows)
    write_lines(tmp_path / "pairs.jsonl", pairs)
    changes = {"objectives": OBJECTIVES[:1], "debias": {"nuisances": []}, "bench": []}
    path = write_recipe(tmp_path, tiny_folder, **changes)
    found = as_planned(path, tmp_path, features)
    assert isinstance(found, Run) or "give" in found or "need" in found, found
