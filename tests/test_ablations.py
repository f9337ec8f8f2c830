"""Rivals of a run, and the method without masking of missing labels, on planted features and on the small run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from armorm.compare.ablations import (
    Unmasked,
    fill_values,
    fit_without_masking,
    fitted_weights,
    load_without_masking,
    rival_methods,
)
from armorm.data.rows import PreferencePair, RatedResponse
from armorm.data.splits import Split
from armorm.errors import CheckpointError, ObjectiveMismatch, RecipeError
from armorm.features.store import Block, Stored, open_store
from armorm.fit.parts import load_debias, load_gate, load_probe
from armorm.objectives import Objective, Objectives
from armorm.progress import Reporter
from armorm.recipe import FixedWeightsRecipe, Recipe, load_recipe
from armorm.rivals.bradley_terry import fit_bradley_terry
from armorm.run.fitting import PairArrays, fit_debias_stage, fit_gate_stage, fit_probe_stage, pair_arrays
from armorm.run.methods import Graded, Method, judge, methods
from armorm.run.rows import read_rows, side_of
from armorm.run.train import Run

QUIET, FEATURE, D = Reporter(quiet=True), "final:last", 8
OBJECTIVES = Objectives(
    [Objective(name="quality", min=0, max=4), Objective(name="safety", min=0, max=1), Objective(name="wordiness", min=1, max=10)]
)
TRUTH = np.zeros((3, D))
TRUTH[0, :2], TRUTH[1, 2], TRUTH[2, 3] = 0.1, 0.2, 0.2
PREFERRED = np.array([1.5, 0.5, -0.5])
"""What the planted pairs are decided by: rewards for quality and safety, against wordiness."""


@dataclass(frozen=True)
class InMemory(Stored):
    """A store whose one shard is at hand."""

    only: Block

    def block(self, shard: int) -> Block:
        return self.only


def in_memory(tensors: dict[str, np.ndarray], ids: tuple[str, ...], names: tuple[str, ...] = ()) -> Stored:
    return InMemory(Path("in-memory"), {"rows": len(ids), "shards": 1}, Block(tensors, ids, names))


@dataclass(frozen=True)
class Planted:
    recipe: Recipe
    ratings: dict[str, Any]
    pairs: PairArrays


def planted_recipe() -> Recipe:
    given: dict[str, Any] = {
        "name": "planted",
        "ratings": [{"path": "r.jsonl"}],
        "pairs": [{"path": "p.jsonl"}],
        "splits": {"validation": 0.15, "test": 0.25},
        "probe": {"folds": 3, "intercept": True},
        "debias": {"nuisances": ["wordiness"]},
        "gate": {"hidden": 8, "hidden_layers": 1, "steps": 60, "batch_size": 64, "evaluate_every": 20},
    }
    return Recipe.model_validate(given)


def rated(name: str, features: np.ndarray, columns: list[int], rng: np.random.Generator) -> tuple[Stored, list[RatedResponse]]:
    unit = 0.5 + features @ TRUTH.T + 0.03 * rng.normal(size=(len(features), 3))
    raw = OBJECTIVES.from_unit(unit)[:, columns]
    ids, names = tuple(f"{name}{i}" for i in range(len(raw))), tuple(OBJECTIVES.names[c] for c in columns)
    empty = np.zeros((len(raw), 1), np.float32)
    tensors = {f"response/{FEATURE}": features, f"prompt/{FEATURE}": empty, "response/tokens": np.ones(len(raw), int)}
    rows = [RatedResponse(i, i, name, (), dict(zip(names, map(float, r), strict=True))) for i, r in zip(ids, raw, strict=True)]
    return in_memory(tensors | {"ratings": raw}, ids, names), rows


def preferences(p: int, rng: np.random.Generator) -> tuple[Stored, list[PreferencePair]]:
    one, two = rng.normal(size=(2, p, D)).astype(np.float32)
    gap = (one - two) @ TRUTH.T @ PREFERRED
    first = (gap + 0.05 * rng.normal(size=p) > 0)[:, None]
    ids, tokens = tuple(f"p{i}" for i in range(p)), np.arange(p) % 17 + 1
    tensors = {f"chosen/{FEATURE}": np.where(first, one, two), f"rejected/{FEATURE}": np.where(first, two, one)}
    tensors |= {f"prompt/{FEATURE}": rng.normal(size=(p, 3)).astype(np.float32)}
    tensors |= {"chosen/tokens": tokens, "rejected/tokens": tokens[::-1].copy()}
    return in_memory(tensors, ids), [PreferencePair(i, i, "pairs", (), "a", "b") for i in ids]


def plant(*, everything: bool = False) -> Planted:
    """Two sets that rate different objectives. The second's answers vary along one of the two directions that make quality, and
    their quality is unrated: filling it in says that this direction means nothing."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 400, D)).astype(np.float32)
    second[:, 0] *= 6
    columns = ([0, 1, 2], [0, 1, 2]) if everything else ([0, 2], [1, 2])
    ratings = {n: rated(n, x, c, rng) for n, x, c in zip(("one", "two"), (first, second), columns, strict=True)}
    settings = planted_recipe()
    return Planted(settings, ratings, pair_arrays(settings, {"pairs": preferences(900, rng)}))


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant()


@pytest.fixture(scope="module")
def masked(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The run's own parts, and the facts of its probe."""
    at = tmp_path_factory.mktemp("masked")
    facts = fit_probe_stage(at / "probe", planted.recipe, OBJECTIVES, planted.ratings, QUIET)
    fit_debias_stage(at / "debias", planted.recipe, at / "probe", planted.ratings, planted.pairs, QUIET)
    fit_gate_stage(at / "gate", planted.recipe, at / "probe", load_debias(at / "debias"), planted.pairs, QUIET)
    return at, facts


@pytest.fixture(scope="module")
def unmasked(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Unmasked]]:
    found = {}
    for fill in ("mean", "zero"):
        at = tmp_path_factory.mktemp(fill)
        found[fill] = at, fit_without_masking(planted.recipe, OBJECTIVES, planted.ratings, planted.pairs, at, QUIET, fill=fill)
    return found


def pearson(facts: dict[str, Any], name: str) -> float:
    return next(o["pearson"]["value"] for o in facts["objectives"] if o["name"] == name)


def accuracy(method: Method, pairs: PairArrays) -> float:
    test = pairs.take(pairs.at(Split.TEST))
    chosen, rejected = (method.scorer.score_features(side[method.feature]) for side in (test.chosen, test.rejected))
    return float((chosen > rejected).mean())


# -- without masking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_masking_predicts_held_out_ratings_better_where_sets_rate_different_things(masked, unmasked, fill: str):
    _, facts = masked
    filled = unmasked[fill][1].facts["probe"]
    assert pearson(facts, "quality") > 0.85
    assert pearson(facts, "quality") > pearson(filled, "quality") + 0.1
    # every row has this rating: nothing is filled
    assert pearson(facts, "wordiness") == pytest.approx(pearson(filled, "wordiness"), abs=1e-9)
    rows = {o["name"]: o["n_train"] for o in filled["objectives"]}
    assert len(set(rows.values())) == 1  # every row carries every objective
    assert next(o["n_train"] for o in facts["objectives"] if o["name"] == "quality") < 0.6 * rows["quality"]


def test_masking_orders_more_pairs_right(planted: Planted, masked, unmasked):
    at, _ = masked
    probe, feature = load_probe(at / "probe")
    whole = replace(unmasked["mean"][1], probe=probe, debias=load_debias(at / "debias"), gate=load_gate(at / "gate")).method
    assert feature == whole.feature
    with_masking, without = (accuracy(m, planted.pairs) for m in (whole, unmasked["mean"][1].method))
    assert with_masking > 0.8
    assert with_masking > without + 0.05


def test_the_filled_probe_is_ridge_on_the_filled_matrix(planted: Planted, unmasked):
    """Reference: an ordinary ridge regression with intercept on all training rows, gaps filled beforehand."""
    from sklearn.linear_model import Ridge

    _, found = unmasked["mean"]
    values = fill_values(planted.recipe, OBJECTIVES, planted.ratings, "mean")
    features, labels = [], []
    for stored, rows in planted.ratings.values():
        at = np.array([side_of(r.group, planted.recipe) is not Split.TEST for r in rows])
        (block,) = stored.blocks()
        features.append(block.tensors[f"response/{FEATURE}"][at].astype(float))
        labels.append(OBJECTIVES.to_unit(block.ratings(OBJECTIVES))[at])
    x, y = np.concatenate(features), np.concatenate(labels)
    np.testing.assert_allclose(values, np.nanmean(y, axis=0))
    y = np.where(np.isnan(y), values, y)
    for i, alpha in enumerate(found.probe.alphas):
        np.testing.assert_allclose(found.probe.weights[i], Ridge(alpha=alpha).fit(x, y[:, i]).coef_, rtol=1e-6, atol=1e-9)


def test_fills_come_from_training_rows_and_an_unrated_objective_stays_empty(planted: Planted):
    more = Objectives([*OBJECTIVES, Objective(name="never", min=0, max=1)])
    for fill in ("mean", "zero"):
        assert np.isnan(fill_values(planted.recipe, more, planted.ratings, fill)).tolist() == [False] * 3 + [True]
    before = fill_values(planted.recipe, OBJECTIVES, planted.ratings, "mean")
    assert (fill_values(planted.recipe, OBJECTIVES, planted.ratings, "zero") == 0).all()

    def changed(split: Split) -> dict[str, Any]:
        new = {}
        for name, (stored, rows) in planted.ratings.items():
            hit = [side_of(r.group, planted.recipe) is split for r in rows]
            assert any(hit)
            new[name] = (
                stored,
                [replace(r, ratings=dict.fromkeys(r.ratings, 0.0)) if h else r for r, h in zip(rows, hit, strict=True)],
            )
        return new

    np.testing.assert_array_equal(fill_values(planted.recipe, OBJECTIVES, changed(Split.TEST), "mean"), before)
    assert (fill_values(planted.recipe, OBJECTIVES, changed(Split.TRAIN), "mean") < before).all()


def test_where_nothing_is_missing_nothing_changes(tmp_path: Path):
    """Law: the ablation is the run itself, to the bit, on ratings without gaps."""
    whole = plant(everything=True)
    run = tmp_path / "run"
    fit_probe_stage(run / "probe", whole.recipe, OBJECTIVES, whole.ratings, QUIET)
    fit_debias_stage(run / "debias", whole.recipe, run / "probe", whole.ratings, whole.pairs, QUIET)
    fit_gate_stage(run / "gate", whole.recipe, run / "probe", load_debias(run / "debias"), whole.pairs, QUIET)
    fit_without_masking(whole.recipe, OBJECTIVES, whole.ratings, whole.pairs, tmp_path / "filled", QUIET, feature=FEATURE)
    files = [p.relative_to(run) for p in run.rglob("*") if p.is_file()]
    assert len(files) == 2 * (4 + 1 + 4)  # the probe and three without a fold, the debiasing, four gates
    for file in files:
        assert (run / file).read_bytes() == (tmp_path / "filled" / file).read_bytes(), file


def test_what_was_fitted_is_read_back(planted: Planted, unmasked):
    for fill, (at, found) in unmasked.items():
        read = load_without_masking(at)
        assert (read.fill, read.feature, read.facts) == (fill, found.feature, found.facts)
        json.dumps(read.facts, allow_nan=False)
        answers = planted.pairs.chosen[FEATURE]
        np.testing.assert_array_equal(read.method.scorer.score_features(answers), found.method.scorer.score_features(answers))


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 2}', '{"format": 1}'])
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / "unmasked.json").write_text(text)
    with pytest.raises(CheckpointError, match="fit it again"):
        load_without_masking(tmp_path)


def test_the_feature_can_be_the_runs_own(planted: Planted, tmp_path: Path):
    two = planted.recipe.model_copy(
        update={"features": planted.recipe.features.model_copy(update={"response": ["3:mean", FEATURE]})}
    )
    found = fit_without_masking(two, OBJECTIVES, planted.ratings, planted.pairs, tmp_path, QUIET, feature=FEATURE)
    assert [c["feature"] for c in found.facts["probe"]["candidates"]] == [FEATURE]


def test_a_whole_run_has_its_rivals(run: Run, tmp_path: Path):
    """On stored features of a real run: real shards, several candidates, the run's feature and cross-fitting probes."""
    recipe = load_recipe(run.folder / "recipe.yaml")
    objectives = recipe.load_objectives()
    rows = read_rows(recipe, objectives)

    def stores(found: dict[str, Any]) -> dict[str, Any]:
        opened = {}
        for name, own in found.items():
            (home,) = [s for p in (run.folder / "features").glob(f"{name}-*") if (s := open_store(p)) and len(s) == len(own)]
            opened[name] = (home, own)
        return opened

    ratings, pairs = stores(rows.ratings), pair_arrays(recipe, stores(rows.pairs))
    feature = load_probe(run.folder / "probe")[1]
    unmasked = fit_without_masking(recipe, objectives, ratings, pairs, tmp_path, QUIET, feature=feature)
    json.dumps(unmasked.facts, allow_nan=False)
    assert (unmasked.feature, unmasked.probe.objectives) == (feature, objectives)
    fixed = [FixedWeightsRecipe(name="quality", weights={"panel-quality": 1.0, "panel-verbosity": -0.5})]
    found = rival_methods(recipe, run.folder / "probe", pairs, fixed=fixed, unmasked=[unmasked])
    bench = pair_arrays(recipe, stores(rows.suite_pairs))
    assert len(found) == 3
    for method in found:
        scores = method.scorer.score_features(bench.chosen[feature])
        assert len(scores) == len(bench)
        assert np.isfinite(scores).all()
        assert scores.std() > 0


# -- rivals -----------------------------------------------------------------------------------------------------------------


def test_rivals_of_a_run_beat_chance_and_find_the_planted_signs(planted: Planted, masked, unmasked):
    at, _ = masked
    mapped = dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity"), "quality") | {"verbosity": "wordiness"}
    fixed = [
        FixedWeightsRecipe(name="mapped", preset="helpsteer2", objectives=mapped),
        FixedWeightsRecipe(name="truth", weights=dict(zip(OBJECTIVES.names, PREFERRED.tolist(), strict=True))),
    ]
    parts = [u for _, u in unmasked.values()]
    found = {m.scorer.name: m for m in rival_methods(planted.recipe, at / "probe", planted.pairs, fixed=fixed, unmasked=parts)}
    assert list(found) == ["fixed-mapped", "fixed-truth", "fitted-weights", "armorm-not-masked", "armorm-not-masked-zero"]
    assert [found[n].scorer.label for n in ("armorm-not-masked", "armorm-not-masked-zero")] == [
        "… without missing-label masking",
        "… without missing-label masking (zero filled)",
    ]
    right = {name: accuracy(method, planted.pairs) for name, method in found.items()}
    assert right["fixed-truth"] > 0.85
    assert right["fitted-weights"] > 0.85
    assert right["fixed-mapped"] > 0.7
    weights = fitted_weights(planted.recipe, at / "probe", planted.pairs).by_objective
    assert np.sign(list(weights.values())).tolist() == [1, 1, -1]


def test_fitted_weights_read_cross_fitted_rewards_of_training_pairs(planted: Planted, masked):
    """Reference: rewards taken pair by pair from the probe that lacks the pair's fold, test pairs left out by hand."""
    at, _ = masked
    pairs = planted.pairs
    kept = [i for i, side in enumerate(pairs.sides) if side is not Split.TEST]
    assert 0 < len(kept) < len(pairs)
    lacking = [load_probe(at / "probe" / f"without-fold-{i}")[0] for i in range(3)]

    def rewards(response: np.ndarray) -> np.ndarray:
        return np.concatenate([lacking[int(pairs.folds[i])].predict(response[i : i + 1]) for i in kept])

    chosen, rejected = rewards(pairs.chosen[FEATURE].response), rewards(pairs.rejected[FEATURE].response)
    validation = np.array([pairs.sides[i] is Split.VALIDATION for i in kept])
    expected = fit_bradley_terry({"rewards": chosen}, {"rewards": rejected}, validation)
    found = fitted_weights(planted.recipe, at / "probe", pairs)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-6)
    assert found.strength == expected.strength


def test_rivals_stand_in_a_table_beside_the_method(planted: Planted, masked, unmasked):
    at, _ = masked
    probe, feature = load_probe(at / "probe")
    gates = {n: load_gate(at / "gate", n) for n in ("gate", "fixed", "uniform", "single")}
    known, test = (planted.pairs.take(planted.pairs.at(*s)) for s in ((Split.TRAIN, Split.VALIDATION), (Split.TEST,)))
    sides = ({f: a.response for f, a in side.items()} for side in (known.chosen, known.rejected))
    rival = fit_bradley_terry(*sides, known.at(Split.VALIDATION), strengths=(1e-2,))
    tried = methods(probe, feature, load_debias(at / "debias"), gates, gates, "quality", rival)
    tried += rival_methods(planted.recipe, at / "probe", planted.pairs, unmasked=[unmasked["mean"][1]])
    _, table, _ = judge("held-out", Graded.of_pairs(test), test, tried, seed=0)
    rows = {r["method"]: r["overall"]["value"] for r in table["methods"]}
    assert len(rows) == len(tried) == 10
    assert rows["armorm-not-masked"] == pytest.approx(accuracy(tried[-1], planted.pairs))


def test_settings_that_contradict_themselves_are_refused(planted: Planted, masked):
    at, _ = masked

    def rivals(*fixed: FixedWeightsRecipe) -> list[Method]:
        return rival_methods(planted.recipe, at / "probe", planted.pairs, fixed=fixed)

    one = FixedWeightsRecipe(name="one", weights={"quality": 1.0})
    with pytest.raises(RecipeError, match="named twice: one"):
        rivals(one, one)
    with pytest.raises(RecipeError, match="leave `objectives` out"):
        rivals(one.model_copy(update={"objectives": {"helpfulness": "quality"}}))
    with pytest.raises(ObjectiveMismatch, match=r"helpfulness \(helpsteer-helpfulness\)"):
        rivals(FixedWeightsRecipe(name="preset", preset="helpsteer2"))
    assert [m.scorer.name for m in rivals(one)] == ["fixed-one", "fitted-weights"]
