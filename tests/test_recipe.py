"""Recipes: every fault at once, each with its key and a remedy; the shipped ones are whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_run import OBJECTIVES

from armorm.data.sources.registry import RELEASED_ORDER
from armorm.data.starter import RECIPE
from armorm.errors import RecipeError
from armorm.fit.gate_settings import GateSettings
from armorm.objectives import ScaleMap
from armorm.recipe import Recipe, Suite, load_recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
WHOLE: dict[str, Any] = {
    "name": "test",
    "objectives": OBJECTIVES,
    "ratings": [{"hub": "owner/ratings"}],
    "pairs": [{"hub": "owner/pairs", "name": "pairs"}],
}


def written(folder: Path, recipe: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe), encoding="utf-8")
    return path


def faults(folder: Path, **changes: Any) -> list[str]:
    """The faults that loading the recipe reports, one per line."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(folder, {**WHOLE, **changes}))
    head, *lines = str(caught.value).splitlines()
    assert head.startswith(str(folder / "recipe.yaml"))
    return [line.removeprefix("  - ") for line in lines]


def test_the_smallest_recipe_takes_the_papers_gate(tmp_path: Path):
    recipe = load_recipe(written(tmp_path, WHOLE))
    assert recipe.features.response == ["final:last"]
    assert recipe.features.prompt == "final:last"
    gate = recipe.gate
    assert (gate.hidden, gate.hidden_layers, gate.steps, gate.batch_size) == (1024, 3, 10_000, 1024)
    assert (gate.learning_rate, gate.scale_init, gate.temperature) == (1e-3, 100.0, 1.0)
    assert not recipe.probe.intercept


@pytest.mark.parametrize(
    ("changes", "key", "meant"),
    [
        ({"seeds": 3}, "seeds", "seed"),
        ({"gate": {"hiden": 3}}, "gate.hiden", "hidden"),
        ({"backbone": {"max_token": 512}}, "backbone.max_token", "max_tokens"),
        ({"ratings": [{"hub": "owner/ratings", "spilt": "train"}]}, "ratings.0.spilt", "split"),
        ({"ratings": [{"hub": "owner/ratings", "columns": {"mesages": "m"}}]}, "ratings.0.columns.mesages", "messages"),
        ({"bench": [{"name": "b", "source": {"hub": "o/b", "subsets": "x"}}]}, "bench.0.source.subsets", "subset"),
        (
            {"bench": [{"name": "b", "source": {"hub": "o/b", "columns": {"chose": "x"}}}]},
            "bench.0.source.columns.chose",
            "chosen",
        ),
        ({"features": {"store_too": {"respons": []}}}, "features.store_too.respons", "response"),
    ],
)
def test_misspelt_keys_are_told_which_was_meant_at_any_depth(tmp_path: Path, changes: dict[str, Any], key: str, meant: str):
    assert faults(tmp_path, **changes) == [f"{key}: no such key; did you mean {meant!r}?"]


def test_a_key_like_none_lists_the_keys_there(tmp_path: Path):
    (fault,) = faults(tmp_path, splits={"qqq": 1})
    assert fault == "splits.qqq: no such key; the keys here are validation, test"


@pytest.mark.parametrize("key", ["name", "objectives", "ratings", "pairs"])
def test_missing_keys_are_named(tmp_path: Path, key: str):
    path = written(tmp_path, {k: v for k, v in WHOLE.items() if k != key})
    with pytest.raises(RecipeError, match=f"- {key}: missing; (add it|list them, name a file)"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": "many"}, r"seed: .*integer.*\(got 'many'\)"),
        ({"pairs": []}, r"pairs: .*at least 1 item.*"),
        ({"gate": {"dropout": 1.0}}, r"gate.dropout: .*less than 1"),
        ({"gate": {"patience": 0}}, r"gate.patience: .*greater than 0"),
        ({"gate": {"scale_learning_rate": -1}}, r"gate.scale_learning_rate: .*greater than or equal to 0"),
        ({"gate": {"hidden": 2.5}}, r"gate.hidden: .*integer"),
        ({"probe": {"alphas": [1.0, -1.0]}}, r"probe.alphas.1: .*greater than 0"),
        ({"features": {"response": ["final:turn"]}}, r"features.response.0: only a prompt ends in a user's turn"),
        ({"probe": {"folds": 1}}, r"probe.folds: .*greater than or equal to 2"),
        ({"backbone": {"dtype": "int8"}}, r"backbone.dtype: .*'bfloat16'"),
        ({"splits": {"validation": 0.5, "test": 0.5}}, r"splits: validation and test together leave nothing to train on"),
        ({"features": {"response": ["18"]}}, r"features.response.0: .*LAYER:POOLING"),
        ({"features": {"response": ["0:mean"]}}, r"features.response.0: .*layer number from 1"),
        ({"features": {"response": ["18:max"]}}, r"features.response.0: .*last, closing, mean"),
        ({"features": {"response": []}}, r"features.response: .*at least 1 item"),
        ({"features": {"prompt": "final:closing"}}, r"features.prompt: a prompt has no closing token.*last, turn or mean"),
        ({"features": {"store_too": {"prompt": ["18:sum"]}}}, r"features.store_too.prompt.0: .*LAYER:POOLING"),
        ({"ratings": [{"hub": "a/b", "path": "c.jsonl"}]}, r"ratings.0: give exactly one of source, path, hub, builtin and made"),
        ({"ratings": [{"cap": 3}]}, r"ratings.0: give exactly one of source, path, hub, builtin and made"),
        ({"ratings": [{"hub": "a/b", "cap": 0}]}, r"ratings.0.cap: .*greater than or equal to 1"),
        (
            {"debias": {"nuisances": ["panel-lenght"]}},
            r"debias.nuisances: 'panel-lenght' is neither an objective .*panel-verbosity",
        ),
        ({"objectives": [{"name": "x", "min": 1, "max": 1}]}, r"recipe: objectives\[0\].*min < max"),
        ({"objectives": "nowhere.json"}, r"nowhere.json: no such file"),
        ({"ratings": [{"path": "nowhere-*.jsonl"}]}, r"ratings: nowhere-\*.jsonl: no file matches"),
        ({"backbone": {"chat_template": "nowhere.jinja"}}, r"backbone.chat_template: no such file: nowhere.jinja"),
        ({"bench": [{"name": "b", "source": {"hub": "a/b"}}] * 2}, r"bench: named twice: b"),
    ],
)
def test_a_fault_is_said_once_with_its_key(tmp_path: Path, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found = faults(tmp_path, **changes)
    assert len(found) == 1
    assert re.match(said, found[0]), found


def test_all_faults_of_form_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ARMORM_DATA", raising=False)
    found = faults(
        tmp_path,
        seed="many",
        gate={"hiden": 3, "steps": 0},
        features={"response": ["18"]},
        splits={"validation": 0.9, "test": 0.9},
        pairs=[{"path": "${ARMORM_DATA}/pairs.jsonl"}],
    )
    keys = {f.split(":")[0] for f in found}
    assert {"seed", "gate.hiden", "gate.steps", "features.response.0", "splits"} <= keys
    assert len(found) == 6
    assert any("ARMORM_DATA is not set" in f for f in found)


def test_all_contradictions_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found = faults(
        tmp_path,
        ratings=[{"path": "no-ratings.jsonl"}, {"path": "no-more.jsonl"}],
        pairs=[{"path": "no-pairs.jsonl"}],
        bench=[{"name": "b", "source": {"path": "no-bench.jsonl"}}] * 2,
        debias={"nuisances": ["nothing", "none"]},
    )
    assert len(found) == 8
    assert [f.split(":")[0] for f in found if "no file matches" in f] == ["ratings", "ratings", "pairs", "bench b", "bench b"]


def test_an_unset_variable_is_said_once_and_other_variables_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("ARMORM_DATA", "MY_PAIRS"):
        monkeypatch.delenv(name, raising=False)
    sources = [{"path": "${ARMORM_DATA}/a.jsonl"}, {"path": "${ARMORM_DATA}/b.jsonl"}]
    found = faults(tmp_path, ratings=sources, pairs=[{"path": "${MY_PAIRS}/c.jsonl"}])
    assert [f for f in found if "ARMORM_DATA" in f] == [
        "the environment variable ARMORM_DATA is not set: ARMORM_DATA=/path/to/it armorm train …"
    ]
    assert sum("MY_PAIRS" in f for f in found) == 1


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "name: [", "name: \udc80"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        load_recipe(path)


def test_a_missing_recipe_says_where_there_are_some(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"no such recipe; .* recipes/"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_the_resolved_recipe_round_trips(tmp_path: Path):
    recipe = load_recipe(written(tmp_path, WHOLE | {"scale_map": {"panel-*": "bin_centres"}, "gate": {"patience": None}}))
    again = load_recipe(written(tmp_path, recipe.to_yaml()))
    assert again == recipe
    assert again.gate.patience is None
    resolved = yaml.safe_load(recipe.to_yaml())
    assert set(resolved) == set(Recipe.model_fields)
    assert set(resolved["gate"]) == {f.name for f in fields(GateSettings)}


def test_scale_maps_go_to_the_objectives_whose_names_match(tmp_path: Path):
    recipe = load_recipe(written(tmp_path, WHOLE | {"scale_map": {"panel-*": "bin_centres"}}))
    maps = {o.name: o.scale_map for o in recipe.load_objectives()}
    assert maps == {
        "panel-quality": ScaleMap.BIN_CENTRES,
        "panel-verbosity": ScaleMap.BIN_CENTRES,
        "judge-quality": ScaleMap.END_POINTS,
    }


def test_sections_are_renamed_by_pattern_the_subset_first():
    suite = Suite.model_validate({"name": "b", "source": {"hub": "a/b"}, "sections": {"hep-*": "code", "math": "reasoning"}})
    assert suite.section_of("", "hep-python") == "code"
    assert suite.section_of("math", "prm") == "reasoning"
    assert suite.section_of("chat", "easy") == "chat"
    assert suite.section_of("", "easy") == "easy"
    assert suite.section_of("", "") == "all"


@pytest.fixture
def stub_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that recipes/open-data.yaml names, all but empty."""
    for name in ("truthfulqa", "mt-bench", "just-eval", "qlora-vicuna"):
        (tmp_path / "ratings").mkdir(exist_ok=True)
        (tmp_path / "ratings" / f"{name}.jsonl.gz").touch()
    for name in ("gsm8k", "hh-helpful-train", "qlora-vicuna", "prmbench-train"):
        (tmp_path / "pairs").mkdir(exist_ok=True)
        (tmp_path / "pairs" / f"{name}.jsonl.gz").touch()
    for name in ("dev-pairs", "rewardbench-partial"):
        (tmp_path / "bench").mkdir(exist_ok=True)
        (tmp_path / "bench" / f"{name}.jsonl.gz").touch()
    objectives = [{"name": "computed-verbosity", "min": 0, "max": 10, "direction": "neutral"}]
    (tmp_path / "ratings" / "objectives.json").write_text(json.dumps(objectives))
    monkeypatch.setenv("ARMORM_DATA", str(tmp_path))
    return tmp_path


NAMED = {"name": "named", "ratings": ["helpsteer", "ultrafeedback"], "pairs": ["shp"], "bench": ["rewardbench"]}


def test_public_sets_are_named_by_a_word_and_bring_their_objectives(tmp_path: Path):
    recipe = load_recipe(written(tmp_path, NAMED))
    assert [s.source for s in (*recipe.ratings, *recipe.pairs)] == ["helpsteer", "ultrafeedback", "shp"]
    assert (recipe.bench[0].name, recipe.bench[0].benchmark) == ("rewardbench", "rewardbench")
    assert recipe.load_objectives().names == RELEASED_ORDER[:10]


def test_the_eight_sets_give_the_released_models_objectives_in_any_order(tmp_path: Path):
    eight = [
        "openorca",
        "code-ultrafeedback",
        "argilla-math",
        "capybara",
        "prometheus",
        "beavertails",
        "ultrafeedback",
        "helpsteer",
    ]
    assert load_recipe(written(tmp_path, NAMED | {"ratings": eight})).load_objectives().names == RELEASED_ORDER


def test_ones_own_objectives_stand_behind_those_of_the_public_sets(tmp_path: Path):
    own = [{"name": "mine", "min": 1, "max": 3}, {"name": "helpsteer-coherence", "min": 0, "max": 4, "rater": "me"}]
    recipe = NAMED | {"objectives": own, "ratings": ["helpsteer", {"hub": "owner/mine"}]}
    recipe["scale_map"] = {"helpsteer-verbosity": "end_points"}
    found = load_recipe(written(tmp_path, recipe)).load_objectives()
    assert found.names == (*RELEASED_ORDER[:5], "mine")
    assert found[2].rater == "me"
    assert [o.scale_map for o in found[1:3]] == [ScaleMap.BIN_CENTRES, ScaleMap.END_POINTS]  # the set's, one's own
    assert found[4].scale_map is ScaleMap.END_POINTS


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ratings": ["helpstear"]}, r"ratings: there is no rating source 'helpstear': did you mean 'helpsteer'\?"),
        ({"pairs": ["beavertails"]}, r"pairs: there is no pair source 'beavertails'"),
        ({"bench": ["rewardbanch"]}, r"bench: there is no benchmark 'rewardbanch': did you mean 'rewardbench'\?"),
        ({"bench": [{"benchmark": "rm-bench", "sections": {"a": "b"}}]}, r"bench.0: rm-bench has sections of its own"),
        ({"bench": [{"benchmark": "rm-bench", "source": "shp"}]}, r"bench.0: give either a benchmark's name or a source"),
        ({"bench": [{"source": "shp"}]}, r"bench.0: name: missing"),
        ({"ratings": [{"source": "helpsteer", "subset": "x"}]}, r"ratings.0: helpsteer knows its own subset and columns"),
        ({"ratings": [{"source": "helpsteer", "hub": "a/b"}]}, r"ratings.0: give exactly one of source"),
        ({"ratings": [{"source": "helpsteer", "path": "no/such/folder"}]}, r"ratings: no/such/folder: no file matches"),
        ({"ratings": ["helpsteer", "armorm-multi"]}, r"helpsteer and armorm-multi both rate helpsteer-helpfulness"),
        ({"ratings": [{"hub": "a/b"}]}, r"objectives: missing; list them"),
    ],
)
def test_faults_of_named_sets_are_said(tmp_path: Path, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, NAMED | changes))
    assert re.search(said, str(caught.value)), str(caught.value)


def test_every_shipped_recipe_is_whole(stub_data: Path):
    assert len(RECIPES) >= 3
    recipes = {path.stem: load_recipe(path) for path in RECIPES}
    assert {"starter", "open-data", "armorm-llama3-8b"} <= set(recipes)
    for name, recipe in recipes.items():
        assert recipe.name == name
        assert len(recipe.load_objectives()) >= 1


def test_the_packaged_starter_recipe_is_the_one_in_the_folder():
    (ours,) = [p for p in RECIPES if p.stem == "starter"]
    assert load_recipe(RECIPE) == load_recipe(ours)


def test_the_papers_recipe_is_the_papers():
    (path,) = [p for p in RECIPES if p.stem == "armorm-llama3-8b"]
    recipe = load_recipe(path)
    names = recipe.load_objectives().names
    assert names == RELEASED_ORDER
    assert len(recipe.pairs) == 9  # HH-RLHF is one set here; PRM800K, the tenth, is not on the hub and stands there as a comment
    assert set(recipe.debias.reference) <= {s.source for s in recipe.pairs}
    assert recipe.gate == GateSettings(patience=None)
    assert (recipe.debias.nuisances, recipe.debias.method) == (["helpsteer-verbosity"], "spearman")


def test_a_recipe_and_its_gate_settings_load_no_torch():
    code = "import sys, armorm.recipe; assert not {'torch', 'transformers'} & set(sys.modules), 'slow imports'"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
