"""What a dry run accepts, a run can do: recipes that mean nothing are refused, the others end, well or with an error of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_run import OBJECTIVES, Armorm, write_lines, write_recipe, write_rows

from armorm.errors import ArmormError, BackboneError, FitError, RecipeError
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.run import plan as plan_module
from armorm.run import train as train_module
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


# -- names -------------------------------------------------------------------------------------------------------------------

KEYS = [
    "name",
    "ratings.0.name",
    "pairs.0.name",
    "bench.0.name",
    "bench.0.source.name",
    "bench.1.name",
    "compare.judges.0.name",
    "compare.fixed_weights.0.name",
]
PATHS = ["../../esc", "/abs", "a\0b", "x" * 300, ".", "..", "a/b", "esc/", "~/esc", "..\\esc", "C:\\esc", "a\nb", " ", "a "]


def _named(rows: Path, key: str, name: str) -> dict[str, Any]:
    # The recipe's changes that put a name where the key says.
    one = {"path": str(rows / "ratings-panel.jsonl"), "name": name}
    pairs = {"path": str(rows / "pairs.jsonl"), "name": name}
    return {
        "name": {"name": name},
        "ratings.0.name": {"ratings": [one]},
        "pairs.0.name": {"pairs": [pairs]},
        "bench.0.name": {"bench": [{"name": name, "source": {"path": str(rows / "bench.jsonl")}}]},
        "bench.0.source.name": {"bench": [{"name": "b", "source": {"path": str(rows / "bench.jsonl"), "name": name}}]},
        "bench.1.name": {"bench": ["rewardbench", {"name": name, "benchmark": "rewardbench"}]},
        "compare.judges.0.name": {"compare": {"judges": [{"name": name, "local": "smollm2"}]}},
        "compare.fixed_weights.0.name": {"compare": {"fixed_weights": [{"name": name, "weights": {"panel-quality": 1}}]}},
    }[key]


def _tree(folder: Path) -> list[str]:
    return sorted(str(at.relative_to(folder)) for at in folder.rglob("*"))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", PATHS, ids=lambda name: ascii(name)[:20])
def test_a_name_that_is_a_path_is_refused_by_its_key_and_writes_nothing(
    key: str, name: str, own_rows: Path, tiny_folder: Path, tmp_path: Path, armorm: Armorm
):
    out, recipe, name = tmp_path / "deep" / "er" / "run", tmp_path / "recipe.yaml", name.replace("/abs", f"{tmp_path}/abs")
    recipe.write_bytes(write_recipe(own_rows, tiny_folder, **_named(own_rows, key, name)).read_bytes())
    before, beside = _tree(tmp_path), _tree(tmp_path.parent)
    said = r", line \d+: .* holds NUL" if "\0" in name else rf"1 fault\n  - {re.escape(key)}: a name (is|has) "
    for way in (plan, lambda path: train(load_recipe(path), out, reporter=Reporter(quiet=True))):
        with pytest.raises(RecipeError, match=said):
            way(recipe)
    for more in ((), ("--dry-run",)) if name == "../../esc" else ():
        code, _, err = armorm("train", recipe, "--out", out, "--quiet", *more)
        assert code == 2
        assert f"{key}: a name" in " ".join(err.split())
    assert _tree(tmp_path) == before
    assert [at for at in _tree(tmp_path.parent) if at not in beside] == []


@pytest.mark.parametrize("kind", ["ratings", "pairs", "bench"])
@pytest.mark.parametrize("name", ["../../esc", "/abs", "a\0b", "x" * 300, ".", "..", "../x", "a/../../b", "a/", " "])
def test_a_recipe_made_in_python_keeps_to_its_folder_too(kind: str, name: str, own_rows: Path, tiny_folder: Path, tmp_path: Path):
    """What no YAML says is looked at before a row of the source is read."""
    recipe = load_recipe(
        write_recipe(own_rows, tiny_folder, ratings=[{"path": str(own_rows / "ratings-panel.jsonl"), "name": "r"}])
    )
    renamed = getattr(recipe, kind)[0].model_copy(update={"name": name.replace("/abs", f"{tmp_path}/abs")})
    out = tmp_path / "deep" / "er" / "run"
    with pytest.raises(RecipeError, match=rf"{kind}: the source .*: a name (is|has) "):
        train(recipe.model_copy(update={kind: [renamed]}), out, reporter=Reporter(quiet=True))
    assert [at for at in _tree(tmp_path) if not at.startswith("deep/er/run")] == ["deep", "deep/er"]


@pytest.mark.parametrize("stem", [".hidden", "x" * 150, "a\nb", " a", "é" * 60, "a\\b"], ids=ascii)
@pytest.mark.parametrize("kind", ["ratings", "pairs"])
def test_a_files_name_that_can_not_be_a_sources_is_refused(
    kind: str, stem: str, own_rows: Path, tiny_folder: Path, tmp_path: Path, features: Path
):
    file = tmp_path / f"{stem}.jsonl"
    try:
        file.write_bytes((own_rows / ("ratings-panel" if kind == "ratings" else kind)).with_suffix(".jsonl").read_bytes())
    except OSError:
        pytest.skip("no such file name here")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(write_recipe(own_rows, tiny_folder, **{kind: [{"path": str(file)}]}).read_bytes())
    found = as_planned(recipe, tmp_path, features)
    assert isinstance(found, str)
    assert f"{kind}: the source" in found
    assert "(its `name`, or its file's)" in found


# -- devices -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has torch say that there are so many GPUs; none of them computes anything."""

    def there_are(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return there_are


@pytest.mark.parametrize(
    ("device", "count", "said"),
    [
        ("cuda", 0, "there are 0 GPUs"),
        ("cuda:0", 0, "there are 0 GPUs"),
        ("cuda:7", 0, "there are 0 GPUs"),
        ("cuda:7", 2, "there are 2 GPUs"),
        ("cuda:2", 2, "there are 2 GPUs"),
        ("mps", 0, "MPS"),
        ("mps:0", 0, "MPS"),
        ("xpu", 0, ""),
        ("hpu", 0, ""),
        ("meta", 0, "it computes nothing"),
        ("meta:0", 2, "it computes nothing"),
        ("nonsense", 0, "nonsense"),
        ("CUDA", 0, "CUDA"),
        ("cuda:-1", 2, "cuda:-1"),
        ("gpu", 2, "gpu"),
    ],
)
def test_a_device_that_is_not_here_is_refused_before_anything_is_read(
    device: str,
    count: int,
    said: str,
    own_rows: Path,
    tiny_folder: Path,
    tmp_path: Path,
    gpus: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
):
    if device.startswith("mps") and torch.backends.mps.is_available():
        pytest.skip("it is here")
    gpus(count)
    monkeypatch.setattr(plan_module, "survey_rows", lambda *_, **__: pytest.fail("rows were read"))
    monkeypatch.setattr(train_module, "read_rows", lambda *_, **__: pytest.fail("rows were read"))
    recipe = write_recipe(own_rows, tiny_folder, backbone={"device": device})
    for way in (plan, lambda path: train(load_recipe(path), tmp_path / "run", reporter=Reporter(quiet=True))):
        with pytest.raises(BackboneError) as caught:
            way(recipe)
        assert str(caught.value).startswith(f"device {device!r} can't be used here (")
        assert said in str(caught.value)
        assert "give auto, cpu, or a GPU of this machine (cuda, cuda:1, mps)" in str(caught.value)
    assert _tree(tmp_path) == []


def test_a_gates_device_that_is_not_here_is_refused_before_anything_is_read(
    own_rows: Path, tiny_folder: Path, tmp_path: Path, gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
):
    gpus(0)
    monkeypatch.setattr(plan_module, "survey_rows", lambda *_, **__: pytest.fail("rows were read"))
    monkeypatch.setattr(train_module, "read_rows", lambda *_, **__: pytest.fail("rows were read"))
    recipe = write_recipe(own_rows, tiny_folder, gate={"device": "cuda"})
    for way in (plan, lambda path: train(load_recipe(path), tmp_path / "run", reporter=Reporter(quiet=True))):
        with pytest.raises(FitError, match=r"`gate\.device` is cuda, and torch finds no GPU here: set it to auto or cpu"):
            way(recipe)
    assert _tree(tmp_path) == []
    for device in ("mps", "cuda:0", "meta", "nonsense"):
        with pytest.raises(RecipeError, match=r"gate\.device"):
            plan(write_recipe(own_rows, tiny_folder, gate={"device": device}))


def test_a_finished_run_is_read_where_its_devices_are_not(run: Run, rows: Path, tiny_folder: Path, copied: Path, gpus):
    gpus(0)
    recipe = write_recipe(rows, tiny_folder, backbone={"device": "cuda"}, gate={"device": "cuda"})
    assert train(load_recipe(recipe), copied, reporter=Reporter(quiet=True)).computed == ()


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
