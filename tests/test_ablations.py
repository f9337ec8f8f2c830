"""Rivals of a run, and the method without masking of missing labels, on planted features and on the small run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import open_stores, planted_store

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
from armorm.features.answers import Answers
from armorm.fit.debias import Debias
from armorm.fit.method import Fitted
from armorm.objectives import Objective, Objectives
from armorm.progress import Reporter
from armorm.recipe import FixedWeightsRecipe, Recipe, load_recipe
from armorm.rivals.bradley_terry import fit_bradley_terry
from armorm.run.context import TEST, RunContext
from armorm.run.debias_stage import fit_debias_stage
from armorm.run.gate_stage import Gates, fit_gate_stage
from armorm.run.methods import Graded, Method, judge_suite, methods
from armorm.run.pairs import PairArrays, SuiteArrays, pair_arrays
from armorm.run.probe_stage import FittedProbe, fit_probe_stage
from armorm.run.rows import read_rows
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
class Planted:
    context: RunContext
    ratings: dict[str, Answers]
    pairs: PairArrays


@dataclass(frozen=True)
class Parts:
    """What a run's stages fitted, the folder that they wrote into, the facts of the probe."""

    at: Path
    probe: FittedProbe
    debias: Debias
    gates: Gates
    facts: dict[str, Any]

    @property
    def fitted(self) -> Fitted:
        return Fitted(self.probe.probe, self.probe.feature, self.debias, self.gates.gate)


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


def rated(home: Path, features: np.ndarray, columns: list[int], rng: np.random.Generator) -> Answers:
    unit = 0.5 + features @ TRUTH.T + 0.03 * rng.normal(size=(len(features), 3))
    raw, names = OBJECTIVES.from_unit(unit)[:, columns], [OBJECTIVES.names[c] for c in columns]
    talk = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
    ratings = [dict(zip(names, map(float, r), strict=True)) for r in raw]
    rows = [RatedResponse(f"{home.name}{i}", f"{home.name}{i}", home.name, talk, r) for i, r in enumerate(ratings)]
    return planted_store(home, rows, features, np.zeros((len(raw), D)), np.ones(len(raw)))


def preferences(home: Path, p: int, rng: np.random.Generator) -> Answers:
    one, two = rng.normal(size=(2, p, D)).astype(np.float32)
    gap = (one - two) @ TRUTH.T @ PREFERRED
    first = (gap + 0.05 * rng.normal(size=p) > 0)[:, None]
    tokens = np.arange(p) % 17 + 1
    sides = np.where(first, one, two), np.where(first, two, one)
    response = np.stack(sides, axis=1).reshape(-1, D)
    rows = [PreferencePair(f"p{i}", f"p{i}", "pairs", ({"role": "user", "content": "q"},), "a", "b") for i in range(p)]
    prompts = np.pad(rng.normal(size=(p, 3)), ((0, 0), (0, D - 3)))
    return planted_store(home, rows, response, prompts, np.stack([tokens, tokens[::-1]], axis=1).reshape(-1))


def plant(home: Path, *, everything: bool = False) -> Planted:
    """Two sets that rate different objectives. The second's answers vary along one of the two directions that make quality, and
    their quality is unrated: filling it in says that this direction means nothing."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 400, D)).astype(np.float32)
    second[:, 0] *= 6
    columns = ([0, 1, 2], [0, 1, 2]) if everything else ([0, 2], [1, 2])
    ratings = {n: rated(home / n, x, c, rng) for n, x, c in zip(("one", "two"), (first, second), columns, strict=True)}
    context = RunContext(planted_recipe(), OBJECTIVES, QUIET)
    return Planted(context, ratings, pair_arrays(context, {"pairs": preferences(home / "pairs", 900, rng)}))


def fit(planted: Planted, at: Path) -> Parts:
    probe, facts = fit_probe_stage(at / "probe", planted.context, planted.ratings)
    debias, _ = fit_debias_stage(at / "debias", planted.context, probe, planted.ratings, planted.pairs)
    gates, _ = fit_gate_stage(at / "gate", planted.context, probe, debias, planted.pairs)
    return Parts(at, probe, debias, gates, facts)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def masked(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """The run's own parts."""
    return fit(planted, tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module")
def unmasked(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Unmasked, dict[str, Any]]]:
    found = {}
    for fill in ("mean", "zero"):
        at = tmp_path_factory.mktemp(fill)
        found[fill] = at, *fit_without_masking(planted.context, planted.ratings, planted.pairs, at, fill=fill)
    return found


def pearson(facts: dict[str, Any], name: str) -> float:
    return next(o["pearson"]["value"] for o in facts["objectives"] if o["name"] == name)


def accuracy(method: Method, pairs: PairArrays) -> float:
    test = pairs.take(pairs.at(Split.TEST))
    chosen, rejected = (side(method.feature).over(method.scorer.score_features) for side in (test.chosen, test.rejected))
    return float((chosen > rejected).mean())


# -- without masking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_masking_predicts_held_out_ratings_better_where_sets_rate_different_things(masked, unmasked, fill: str):
    facts = masked.facts
    filled = unmasked[fill][2]["probe"]
    assert pearson(facts, "quality") > 0.85
    assert pearson(facts, "quality") > pearson(filled, "quality") + 0.1
    # every row has this rating: nothing is filled
    assert pearson(facts, "wordiness") == pytest.approx(pearson(filled, "wordiness"), abs=1e-9)
    rows = {o["name"]: o["n_train"] for o in filled["objectives"]}
    assert len(set(rows.values())) == 1  # every row carries every objective
    assert next(o["n_train"] for o in facts["objectives"] if o["name"] == "quality") < 0.6 * rows["quality"]


def test_masking_orders_more_pairs_right(planted: Planted, masked, unmasked):
    whole = replace(unmasked["mean"][1], fitted=masked.fitted).method
    with_masking, without = (accuracy(m, planted.pairs) for m in (whole, unmasked["mean"][1].method))
    assert with_masking > 0.8
    assert with_masking > without + 0.05


def test_the_filled_probe_is_ridge_on_the_filled_matrix(planted: Planted, unmasked):
    """Reference: an ordinary ridge regression with intercept on all training rows, gaps filled beforehand."""
    from sklearn.linear_model import Ridge

    _, found, _ = unmasked["mean"]
    values = fill_values(planted.context, planted.ratings, "mean")
    features, labels = [], []
    for store in planted.ratings.values():
        at = planted.context.folds(store.groups) != TEST
        features.append(store.column(f"response/{FEATURE}")[at].astype(float))
        labels.append(OBJECTIVES.to_unit(store.ratings(OBJECTIVES))[at])
    x, y = np.concatenate(features), np.concatenate(labels)
    np.testing.assert_allclose(values, np.nanmean(y, axis=0))
    y = np.where(np.isnan(y), values, y)
    probe = found.fitted.probe
    for i, alpha in enumerate(probe.alphas):
        np.testing.assert_allclose(probe.weights[i], Ridge(alpha=alpha).fit(x, y[:, i]).coef_, rtol=1e-6, atol=1e-9)


def test_fills_come_from_training_rows_and_an_unrated_objective_stays_empty(planted: Planted, tmp_path: Path):
    more = Objectives([*OBJECTIVES, Objective(name="never", min=0, max=1)])
    for fill in ("mean", "zero"):
        wider = replace(planted.context, objectives=more)
        assert np.isnan(fill_values(wider, planted.ratings, fill)).tolist() == [False] * 3 + [True]
    before = fill_values(planted.context, planted.ratings, "mean")
    assert (fill_values(planted.context, planted.ratings, "zero") == 0).all()

    def changed(split: Split) -> dict[str, Answers]:
        """The stores, with all ratings of one split at 0."""
        new = {}
        for name, store in planted.ratings.items():
            given, hit = store.ratings(OBJECTIVES), np.array(planted.context.sides(store.groups)) == split
            assert hit.any()
            given[hit] = np.where(np.isnan(given[hit]), np.nan, 0.0)
            talk = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
            ratings = [{n: float(v) for n, v in zip(OBJECTIVES.names, r, strict=True) if not np.isnan(v)} for r in given]
            rows = [RatedResponse(i, g, name, talk, r) for i, g, r in zip(store.ids, store.groups, ratings, strict=True)]
            numbers = store.column(f"response/{FEATURE}"), store.column(f"prompt/{FEATURE}"), store.tokens()
            new[name] = planted_store(tmp_path / split / name, rows, *numbers)
        return new

    np.testing.assert_array_equal(fill_values(planted.context, changed(Split.TEST), "mean"), before)
    assert (fill_values(planted.context, changed(Split.TRAIN), "mean") < before).all()


def test_where_nothing_is_missing_nothing_changes(tmp_path: Path):
    """Law: the ablation is the run itself, to the bit, on ratings without gaps."""
    whole = plant(tmp_path / "stores", everything=True)
    run = tmp_path / "run"
    fit(whole, run)
    fit_without_masking(whole.context, whole.ratings, whole.pairs, tmp_path / "filled", feature=FEATURE)
    files = [p.relative_to(run) for p in run.rglob("*") if p.is_file()]
    assert len(files) == 2 * (4 + 1 + 4)  # the probe and three without a fold, the debiasing, four gates
    for file in files:
        assert (run / file).read_bytes() == (tmp_path / "filled" / file).read_bytes(), file


def test_what_was_fitted_is_read_back(planted: Planted, unmasked):
    for fill, (at, found, facts) in unmasked.items():
        read = load_without_masking(at)
        assert (read.fill, read.fitted.feature) == (fill, found.fitted.feature)
        json.dumps(facts, allow_nan=False)
        answers = planted.pairs.chosen(FEATURE).take(np.arange(len(planted.pairs)))
        np.testing.assert_array_equal(read.method.scorer.score_features(answers), found.method.scorer.score_features(answers))


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 3}'])
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / "unmasked.json").write_text(text)
    with pytest.raises(CheckpointError, match="fit it again"):
        load_without_masking(tmp_path)


def test_the_feature_can_be_the_runs_own(planted: Planted, tmp_path: Path):
    recipe = planted.context.recipe
    features = recipe.features.model_copy(update={"response": ["3:mean", FEATURE]})
    two = replace(planted.context, recipe=recipe.model_copy(update={"features": features}))
    _, facts = fit_without_masking(two, planted.ratings, planted.pairs, tmp_path, feature=FEATURE)
    assert [c["feature"] for c in facts["probe"]["candidates"]] == [FEATURE]


def test_a_whole_run_has_its_rivals(run: Run, tmp_path: Path):
    """On stored features of a real run: real shards, several candidates, the run's feature and cross-fitting probes."""
    recipe = load_recipe(run.folder / "recipe.yaml")
    context = RunContext(recipe, recipe.load_objectives(), QUIET)
    rows = read_rows(recipe, context.objectives)
    ratings, in_pairs, suites = (open_stores(run.folder / "features", kind) for kind in (rows.ratings, rows.pairs, rows.suites))
    pairs = pair_arrays(context, in_pairs)
    probe = FittedProbe.load(run.folder / "probe", recipe.probe.folds)
    unmasked, facts = fit_without_masking(context, ratings, pairs, tmp_path, feature=probe.feature)
    json.dumps(facts, allow_nan=False)
    assert (unmasked.fitted.feature, unmasked.fitted.probe.objectives) == (probe.feature, context.objectives)
    fixed = [FixedWeightsRecipe(name="quality", weights={"panel-quality": 1.0, "panel-verbosity": -0.5})]
    found = rival_methods(probe, pairs, fixed=fixed, unmasked=[unmasked])
    bench = SuiteArrays.of_store(context, "small-bench", suites["small-bench"])
    assert len(found) == 3
    for method in found:
        scores = bench.answers(probe.feature)[0].over(method.scorer.score_features)
        assert len(scores) == len(bench.items)
        assert np.isfinite(scores).all()
        assert scores.std() > 0


# -- rivals -----------------------------------------------------------------------------------------------------------------


def test_rivals_of_a_run_beat_chance_and_find_the_planted_signs(planted: Planted, masked, unmasked):
    mapped = dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity"), "quality") | {"verbosity": "wordiness"}
    fixed = [
        FixedWeightsRecipe(name="mapped", preset="helpsteer2", objectives=mapped),
        FixedWeightsRecipe(name="truth", weights=dict(zip(OBJECTIVES.names, PREFERRED.tolist(), strict=True))),
    ]
    parts = [u for _, u, _ in unmasked.values()]
    found = {m.scorer.name: m for m in rival_methods(masked.probe, planted.pairs, fixed=fixed, unmasked=parts)}
    assert list(found) == ["fixed-mapped", "fixed-truth", "fitted-weights", "armorm-not-masked", "armorm-not-masked-zero"]
    assert [found[n].scorer.label for n in ("armorm-not-masked", "armorm-not-masked-zero")] == [
        "… without missing-label masking",
        "… without missing-label masking (zero filled)",
    ]
    right = {name: accuracy(method, planted.pairs) for name, method in found.items()}
    assert right["fixed-truth"] > 0.85
    assert right["fitted-weights"] > 0.85
    assert right["fixed-mapped"] > 0.7
    weights = fitted_weights(masked.probe, planted.pairs).weights
    assert np.sign(weights).tolist() == [1, 1, -1]


def test_fitted_weights_read_cross_fitted_rewards_of_training_pairs(planted: Planted, masked):
    """Reference: rewards taken pair by pair from the probe that lacks the pair's fold, test pairs left out by hand."""
    pairs = planted.pairs
    kept = [i for i, side in enumerate(pairs.sides) if side is not Split.TEST]
    assert 0 < len(kept) < len(pairs)
    lacking = FittedProbe.load(masked.at / "probe", 3).without

    def rewards(response: np.ndarray) -> np.ndarray:
        return np.concatenate([lacking[int(pairs.folds[i])].predict(response[i : i + 1]) for i in kept])

    sides = (pairs.chosen(FEATURE).response, pairs.rejected(FEATURE).response)
    chosen, rejected = (rewards(side.rows(np.arange(len(side)))) for side in sides)
    validation = np.array([pairs.sides[i] is Split.VALIDATION for i in kept])
    expected = fit_bradley_terry([("rewards", chosen, rejected)], validation)
    found = fitted_weights(masked.probe, pairs)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-6)
    assert found.strength == expected.strength


def test_rivals_stand_in_a_table_beside_the_method(planted: Planted, masked, unmasked):
    known, test = (planted.pairs.take(planted.pairs.at(*s)) for s in ((Split.TRAIN, Split.VALIDATION), (Split.TEST,)))
    candidates = [(FEATURE, known.chosen(FEATURE).response, known.rejected(FEATURE).response)]
    rival = fit_bradley_terry(candidates, known.at(Split.VALIDATION), strengths=(1e-2,))
    tried = methods(masked.probe, masked.debias, masked.gates, masked.gates, rival)
    tried += rival_methods(masked.probe, planted.pairs, unmasked=[unmasked["mean"][1]])
    suite = SuiteArrays.of_pairs(test)
    table = judge_suite("held-out", Graded.by(None, suite.items), suite, tried, seed=0).table
    rows = {r["method"]: r["overall"]["value"] for r in table["methods"]}
    assert len(rows) == len(tried) == 10
    assert rows["armorm-not-masked"] == pytest.approx(accuracy(tried[-1], planted.pairs))


def test_settings_that_contradict_themselves_are_refused(planted: Planted, masked):
    def rivals(*fixed: FixedWeightsRecipe) -> list[Method]:
        return rival_methods(masked.probe, planted.pairs, fixed=fixed)

    one = FixedWeightsRecipe(name="one", weights={"quality": 1.0})
    with pytest.raises(RecipeError, match="named twice: one"):
        rivals(one, one)
    with pytest.raises(RecipeError, match="leave `objectives` out"):
        rivals(one.model_copy(update={"objectives": {"helpfulness": "quality"}}))
    with pytest.raises(ObjectiveMismatch, match=r"helpfulness \(helpsteer-helpfulness\)"):
        rivals(FixedWeightsRecipe(name="preset", preset="helpsteer2"))
    assert [m.scorer.name for m in rivals(one)] == ["fixed-one", "fitted-weights"]
