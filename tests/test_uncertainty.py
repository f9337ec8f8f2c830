"""Uncertainty is stored and read back whole, says which objectives it is about, and is calibrated by the pipeline's stage."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import open_stores, planted_store

from armorm.data.rows import RatedResponse
from armorm.errors import CheckpointError, ObjectiveMismatch, StorageError
from armorm.features.answers import Answers
from armorm.features.spec import FeatureSpec
from armorm.fit.posterior import fit_posterior
from armorm.fit.probe import fit_probe
from armorm.fit.statistics import RidgeStatistics
from armorm.model.reward_model import RewardModel
from armorm.objectives import Direction, Objective, Objectives, ScaleMap
from armorm.progress import Reporter
from armorm.recipe import Recipe, load_recipe
from armorm.run import coverage
from armorm.run.context import RunContext
from armorm.run.coverage import uncertainty_stage
from armorm.run.probe_stage import FittedProbe, fit_probe_stage
from armorm.run.rows import read_rows
from armorm.run.summing import fold_statistics
from armorm.run.train import Run
from armorm.scoring.uncertainty import Uncertainty

D = 7
OBJECTIVES = Objectives(
    [
        Objective(name="plain", min=0, max=4),
        Objective(name="reversed", min=1, max=10, direction=Direction.LOWER),
        Objective(name="bins", min=0, max=4, scale_map=ScaleMap.BIN_CENTRES),
    ]
)


def rated(n=200, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, D)).astype(np.float32)
    ratings = 0.5 + features @ rng.normal(size=(D, 3)) * 0.05 + 0.1 * rng.normal(size=(n, 3))
    ratings[: n // 2, 2] = np.nan
    return features, ratings


def fitted(*, intercept=False):
    features, ratings = rated()
    folds = [RidgeStatistics.from_rows(features[i::2], ratings[i::2]) for i in range(2)]
    probe = fit_probe(folds, OBJECTIVES, alphas=[1.0], intercept=intercept).probe
    posterior = fit_posterior(folds[0] + folds[1], probe, intercept=intercept)
    correlation = np.eye(3)
    correlation[0, 1] = correlation[1, 0] = 0.4
    posterior = replace(posterior, correlation=correlation, inflation=np.array([1.0, 1.2, 1.4]))
    return probe, Uncertainty(OBJECTIVES, posterior, np.array([1.9, 2.0, 2.5]))


@pytest.mark.parametrize("intercept", [False, True])
def test_what_is_saved_is_read_back(tmp_path: Path, intercept: bool):
    probe, uncertainty = fitted(intercept=intercept)
    uncertainty.save(tmp_path / "model")
    read = Uncertainty.load(tmp_path / "model", OBJECTIVES)
    assert read is not None
    x, c = rated(seed=3)[0][:20], np.random.default_rng(0).normal(size=(20, 4))
    before, after = uncertainty.of_score(x, c), read.of_score(x, c)
    np.testing.assert_allclose(after.std, before.std, rtol=1e-5)
    np.testing.assert_allclose(after.reward_std, before.reward_std, rtol=1e-5)
    gaps = [u.of_difference(x, c, x[::-1], c[::-1]) for u in (uncertainty, read)]
    np.testing.assert_allclose(gaps[1], gaps[0], rtol=1e-4)
    rewards = probe.predict(x)
    for mine, theirs in zip(uncertainty.rating_interval(x, rewards), read.rating_interval(x, rewards), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    assert sorted(f.name for f in (tmp_path / "model").iterdir()) == ["uncertainty.json", "uncertainty.safetensors"]
    read.save(tmp_path / "again")
    for name in ("uncertainty.json", "uncertainty.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_computed_nuisances_add_nothing():
    _, uncertainty = fitted()
    x, c = rated()[0][:5], np.ones((5, 4))
    np.testing.assert_allclose(uncertainty.of_score(x, c).std, uncertainty.of_score(x, c[:, :3]).std)
    with pytest.raises(ObjectiveMismatch, match="2 terms, but 3 objectives"):
        uncertainty.of_score(x, c[:, :2])


def test_intervals_end_where_the_scale_does():
    probe, uncertainty = fitted(intercept=True)
    x = rated()[0][:50] * 30
    low, high = uncertainty.rating_interval(x, probe.predict(x))
    assert (low <= high).all()
    assert low.min(axis=0) == pytest.approx([0, 0, 0.1])
    assert high.max(axis=0) == pytest.approx([1, 1, 0.9])
    near = rated()[0][:50] * 0.01
    half = uncertainty.reach * uncertainty.posterior.predictive_std(near)
    low, high = uncertainty.rating_interval(near, np.full((50, 3), 0.5))
    np.testing.assert_allclose(high - low, 2 * half)


def test_a_folder_without_uncertainty_has_none(tmp_path: Path):
    assert Uncertainty.load(tmp_path) is None
    fitted()[1].save(tmp_path)
    (tmp_path / "uncertainty.json").unlink()  # a save that was stopped half-way
    assert Uncertainty.load(tmp_path) is None


def test_other_objectives_are_refused(tmp_path: Path):
    fitted()[1].save(tmp_path)
    other = Objectives([Objective(name="else", min=0, max=1), *OBJECTIVES[1:]])
    with pytest.raises(ObjectiveMismatch, match="else"):
        Uncertainty.load(tmp_path, other)
    with pytest.raises(ObjectiveMismatch, match="fit it again"):
        Uncertainty(other, fitted()[1].posterior, np.ones(2))


def test_damage_is_named(tmp_path: Path):
    fitted()[1].save(tmp_path)
    facts, tensors = tmp_path / "uncertainty.json", tmp_path / "uncertainty.safetensors"
    text, whole = facts.read_text(), tensors.read_bytes()
    facts.write_text(json.dumps(json.loads(text) | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        Uncertainty.load(tmp_path)
    for change in ({"parts": [{"columns": [0, 9], "n": 1}]}, {"width": 3}, {"objectives": []}, {"parts": 3}, {"level": None}):
        facts.write_text(json.dumps(json.loads(text) | change))
        with pytest.raises(CheckpointError, match="copy the model again"):
            Uncertainty.load(tmp_path)
    facts.write_text(text)
    flipped = bytes([*whole[:-1], whole[-1] ^ 1])
    for broken in (whole[:100], b"", flipped):
        tensors.write_bytes(broken)
        with pytest.raises(CheckpointError, match="copy the model again"):
            Uncertainty.load(tmp_path)
    tensors.unlink()
    with pytest.raises(CheckpointError, match="copy the model again"):
        Uncertainty.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="another place"):
        fitted()[1].save(tmp_path / "file")


# -- the stage, on a whole small run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(run: Run, tmp_path_factory: pytest.TempPathFactory):
    """The stage on the small run's features, and what it returned."""
    recipe = load_recipe(run.folder / "recipe.yaml")
    context = RunContext(recipe, recipe.load_objectives(), Reporter(quiet=True))
    rows = read_rows(recipe, context.objectives)
    ratings = open_stores(run.folder / "features", rows.ratings)
    fitted = FittedProbe.load(run.folder / "probe", recipe.probe.folds)
    folder = tmp_path_factory.mktemp("uncertainty")
    uncertainty, facts = uncertainty_stage(folder, context, fitted, ratings)
    return folder, uncertainty, facts, context, fitted, ratings


def test_the_stage_saves_what_it_calibrated(stage):
    folder, uncertainty, facts, context, fitted, ratings = stage
    objectives = context.objectives
    assert [o["name"] for o in facts["objectives"]] == list(objectives.names)
    json.dumps(facts, allow_nan=False)
    for i, row in enumerate(facts["objectives"]):
        assert uncertainty.posterior.sigma[i] == pytest.approx(row["sigma"])
        assert 0.5 < row["scale"] < 2
        assert row["inflation"] >= 1
        assert 1 < row["reach"] < 4
        assert 0.88 <= row["coverage_cross_validated"]["value"] <= 1
    assert facts["coverage"]["value"] > 0.8
    assert facts["n_test"] == sum(row["n_test"] for row in facts["objectives"])
    assert {n for part in facts["parts"] for n in part["objectives"]} == set(objectives.names)
    assert all(part["error"] <= 0.01 for part in facts["parts"])
    at_hand = replace(fitted, statistics=fold_statistics(context, ratings, [fitted.spec])[fitted.spec])
    assert uncertainty_stage(folder, context, at_hand, ratings)[1] == facts


def test_a_large_set_is_calibrated_on_an_even_share_of_its_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Planted: noise 0.1 on 3,000 rows in 30 shards. A third of them find it too, and no more is read for it."""
    rng, n = np.random.default_rng(0), 3000
    features = rng.normal(size=(n, D)).astype(np.float32)
    given = np.clip(2 + features[:, 0] * 0.4 + 0.4 * rng.normal(size=n), 0, 4)
    talk = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "r"})
    rows = [RatedResponse(f"r{i}", f"g{i // 4}", "rated", talk, {"plain": value}) for i, value in enumerate(given.tolist())]
    store = planted_store(tmp_path / "rated", rows, features, np.zeros((n, D)), np.ones(n), shard_rows=100)
    recipe = Recipe.model_validate(
        {
            "name": "planted",
            "ratings": [{"path": "r"}],
            "pairs": [{"path": "p"}],
            "features": {"response": ["final:last"], "prompt": "final:last"},
            "splits": {"validation": 0.1, "test": 0.2},
            "probe": {"intercept": True},
        }
    )
    context = RunContext(recipe, Objectives([OBJECTIVES[0]]), Reporter(quiet=True))
    probe, _ = fit_probe_stage(tmp_path / "probe", context, {"rated": store})
    folds, facts, read = probe.statistics, [], Counter[int]()
    assert folds is not None
    count, real = sum(fold.rows for fold in folds), Answers.features

    def counting(self: Answers, spec: FeatureSpec, rows: slice = slice(None)) -> Any:
        read[len(facts)] += 1
        return real(self, spec, rows)

    held = [replace(f, parts=tuple(replace(p, triangle=partial(np.asarray, p.triangle())) for p in f.parts)) for f in folds]
    monkeypatch.setattr(Answers, "features", counting)
    for share in (1, 3):
        (tmp_path / f"{share}").mkdir()
        monkeypatch.setattr(coverage, "CALIBRATED", count / share)
        found = uncertainty_stage(tmp_path / f"{share}", context, replace(probe, statistics=held), {"rated": store})
        facts.append(found[1]["objectives"][0])
    assert read[0] == 30 + 30  # to calibrate, and for the test prompts
    assert read[1] == 10 + 30
    assert [one["sigma"] for one in facts] == [pytest.approx(0.1, rel=0.05)] * 2
    assert facts[0]["sigma"] != facts[1]["sigma"]
    assert [one["coverage"]["value"] for one in facts] == [pytest.approx(0.95, abs=0.03)] * 2


def test_what_the_stage_returns_is_what_it_saved_to_the_bit(stage):
    folder, uncertainty, _, context, fitted, ratings = stage
    read = Uncertainty.load(folder, context.objectives)
    assert read is not None
    store = next(iter(ratings.values()))
    x = store.features(fitted.spec)
    c = np.random.default_rng(0).normal(size=(len(x), len(context.objectives)))
    for mine, theirs in zip(vars(uncertainty.of_score(x, c)).values(), vars(read.of_score(x, c)).values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(uncertainty.of_difference(x, c, x[::-1], c), read.of_difference(x, c, x[::-1], c))
    for mine, theirs in zip(uncertainty.posterior.parts, read.posterior.parts, strict=True):
        assert (mine.columns, mine.n, mine.vectors.dtype) == (theirs.columns, theirs.n, np.float32)


def test_calibration_undoes_a_noise_estimate_that_is_too_small(stage):
    """Effect: the held-out errors, not the fit's own, set σ and the reach."""
    _, uncertainty, facts, *_ = stage
    closed = np.array([row["sigma"] / row["scale"] for row in facts["objectives"]])
    assert not np.allclose(closed, uncertainty.posterior.sigma, rtol=1e-4)
    assert not np.allclose(uncertainty.reach, 1.96, atol=1e-3)


def test_two_conversations_are_compared_with_the_differences_own_deviation(run):
    """The trained model on its own pairs: less than the two scores' deviations together, and none against itself."""
    model = RewardModel.from_pretrained(run.folder / "model")
    assert model.uncertainty is not None
    rows = [
        [{"role": "user", "content": "hello how are you"}, {"role": "assistant", "content": text}]
        for text in ("fine thank you", "return x")
    ]
    found = model.difference(*rows)
    one, two = model.score(rows)
    assert found.delta == pytest.approx(one.score - two.score, abs=1e-6)
    assert 0 < found.std < one.std + two.std
    assert found.to_json()["std"] == found.std
    same = model.difference(rows[0], rows[0])
    assert same.std == pytest.approx(0, abs=1e-6)
    model.uncertainty = None
    bare = model.difference(*rows)
    assert (bare.std, bare.delta) == (None, pytest.approx(found.delta))
    assert model.score(rows[0]).std is None
