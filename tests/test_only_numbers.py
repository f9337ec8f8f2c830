"""No number without a meaning: settings, fits, saved parts, models, selections and JSON hold finite numbers or say why not."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file
from small_run import Armorm, write_lines

from armorm.bounds import name_fault, plain_number, shown
from armorm.disk import json_text, load_part, save_part
from armorm.errors import BackboneError, CheckpointError, DataError, FitError, RecipeError
from armorm.features.answers import open_answers
from armorm.features.backbone import device_of
from armorm.fit import parts as parts_module
from armorm.fit.calibration import HeldOut, calibrate
from armorm.fit.debias import Debias, DebiasedRewards
from armorm.fit.gate import Gate, GateSettings, fit_constant_gate, fit_gate
from armorm.fit.gate_training import Scale
from armorm.fit.parts import load_debias, load_gate, load_preference, load_probe, save_gate, save_probe
from armorm.fit.posterior import Leverage
from armorm.fit.probe import Probe, fit_probe
from armorm.fit.statistics import RidgeStatistics
from armorm.jobs.select import build_pairs, select
from armorm.model.reward_model import RewardModel
from armorm.objectives import Objective, Objectives
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.rivals.bradley_terry import fit_bradley_terry, load_bradley_terry, save_bradley_terry
from armorm.run import probe_stage
from armorm.run.context import RunContext
from armorm.run.train import Run
from armorm.scoring.reference import Reference
from armorm.scoring.uncertainty import Uncertainty

TWO = Objectives([Objective(name=n, min=0, max=1) for n in ("a", "b")])
QUICK = GateSettings(hidden=4, hidden_layers=1, steps=40, batch_size=32, evaluate_every=10, scale_init=1.0)
NAN, INF = math.nan, math.inf


def pairs(p: int = 60, gap: float = 0.3) -> tuple[np.ndarray, DebiasedRewards, DebiasedRewards, np.ndarray]:
    rng = np.random.default_rng(0)
    chosen = rng.normal(size=(p, 2)) + np.array([gap, 0])
    prompts = rng.normal(size=(p, 3)).astype(np.float32)
    return prompts, DebiasedRewards(chosen), DebiasedRewards(rng.normal(size=(p, 2))), np.arange(p) % 5 == 0


# -- the gate ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["temperature", "dropout", "learning_rate", "scale_learning_rate", "scale_init", "weight_decay"])
@pytest.mark.parametrize("value", [NAN, INF, -INF, -1.0, 1e300])
def test_settings_of_a_gate_that_mean_nothing_are_refused(name: str, value: Any):
    with pytest.raises(FitError, match=f"gate settings: {name} must be"):
        GateSettings(**{name: value})


@pytest.mark.parametrize("name", ["hidden", "hidden_layers", "steps", "batch_size", "evaluate_every", "patience", "seeds"])
@pytest.mark.parametrize("value", [2**70, -1, -(2**70)])
def test_whole_numbers_of_a_gate_are_whole_and_bounded(name: str, value: Any):
    with pytest.raises(FitError, match=f"gate settings: {name} must be"):
        GateSettings(**{name: value})


@pytest.mark.parametrize("theta", [-80.0, -1.0, 0.5, 1.0, 3.0, 100.0])
def test_beta_is_above_zero_whatever_is_learnt(theta: float):
    scale = Scale(1.0)
    with torch.no_grad():
        scale.theta.fill_(theta)
    assert float(scale.value.detach()) > 0
    scale.value.backward()
    assert scale.theta.grad is not None
    assert float(scale.theta.grad) > 0  # it can always come back
    if theta >= 1:
        assert float(scale.value.detach()) == theta


@pytest.mark.parametrize("initial", [1e-3, 0.5, 1.0, 2.0, 100.0, 1e6])
def test_beta_starts_where_it_is_told_to(initial: float):
    assert float(Scale(initial).value.detach()) == pytest.approx(initial, rel=1e-6)


@pytest.mark.parametrize("start", [0.001, 0.1, 1.0, 5.0])
def test_beta_stays_above_zero_where_the_pairs_are_the_wrong_way_round(start: float):
    prompts, chosen, rejected, validation = pairs(gap=3.0)
    settings = replace(QUICK, scale_init=start, learning_rate=1e-9, scale_learning_rate=0.5, steps=200, patience=None)
    fit = fit_gate(prompts, rejected, chosen, validation, TWO, settings=settings, seed=0)
    assert min(fit.curves[0].beta) > 0
    assert fit.gate.scale > 0


def test_training_that_diverges_says_what_to_lower():
    prompts, chosen, rejected, validation = pairs()
    big = [DebiasedRewards(side.values * 1e37) for side in (chosen, rejected)]
    settings = replace(QUICK, scale_init=1e6)
    with pytest.raises(FitError, match=r"diverged at step \d+.*learning_rate"):
        fit_gate(prompts, *big, validation, TWO, settings=settings, seed=0)


@pytest.mark.parametrize("size", [0.0, 1e-60])
def test_without_any_difference_there_is_nothing_to_weigh(size: float):
    prompts, chosen, _, validation = pairs()
    same = DebiasedRewards(chosen.values + size)
    with pytest.raises(FitError, match=r"there is nothing to weigh.*debias\.nuisances"):
        fit_gate(prompts, chosen, same, validation, TWO, settings=QUICK, seed=0)
    with pytest.raises(FitError, match=r"there is nothing to weigh.*debias\.nuisances"):
        fit_constant_gate(chosen, same, validation, TWO)


@pytest.mark.parametrize(
    ("temperature", "scale"), [(0.0, 1.0), (-1.0, 1.0), (NAN, 1.0), (INF, 1.0), (1e-46, 1.0), (1.0, NAN), (1.0, INF), (1.0, -1.0)]
)
def test_a_gate_without_temperature_or_beta_cannot_be_made(temperature: float, scale: float):
    layer = (np.ones((2, 3), np.float32),), (np.zeros(2, np.float32),)
    with pytest.raises(FitError, match="temperature"):
        Gate(TWO, *layer, temperature, scale)
    assert Gate(TWO, *layer, 1.0, 1.0).width == 3


def test_a_gate_has_a_logit_that_is_a_number():
    weights, none = (np.ones((2, 3), np.float32),), np.array([-np.inf, -np.inf], np.float32)
    for bias in (none, np.array([NAN, 0], np.float32), np.array([INF, 0], np.float32)):
        with pytest.raises(FitError, match="NaN or infinite"):
            Gate(TWO, weights, (bias,), 1.0, 1.0)
    with pytest.raises(FitError, match="NaN or infinite"):
        Gate(TWO, (np.full((2, 3), NAN, np.float32),), (np.zeros(2, np.float32),), 1.0, 1.0)
    assert Gate(TWO, weights, (np.array([-INF, 0], np.float32),), 1.0, 1.0).weights_for(np.ones((1, 3))).tolist() == [[0, 1]]


# -- fits --------------------------------------------------------------------------------------------------------------------


def folds(features: np.ndarray, ratings: np.ndarray) -> list[RidgeStatistics]:
    return [RidgeStatistics.from_rows(features[i::3], ratings[i::3]) for i in range(3)]


@pytest.mark.parametrize("alphas", [[1e-300], [1e308], [NAN], [INF], [0.0], [-1.0], [1.0, 1e-13]])
def test_strengths_that_are_rounding_are_refused(alphas: list[float]):
    rng = np.random.default_rng(0)
    with pytest.raises(FitError, match="alphas"):
        fit_probe(folds(rng.normal(size=(60, 4)), rng.random((60, 2))), TWO, alphas=alphas)


def test_features_whose_squares_overflow_are_a_fit_error():
    rng = np.random.default_rng(0)
    with pytest.raises(FitError, match="too large for sums of their squares"):
        fit_probe(folds(rng.normal(size=(60, 4)) * 1e200, rng.random((60, 2))), TWO, alphas=[1.0])


def test_leverages_of_a_gram_matrix_without_full_rank_are_numbers():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(40, 1)) * 1e6, 5, axis=1)
    sums = RidgeStatistics.from_rows(features, rng.random((40, 1))).shared((0,))
    found = Leverage.of(sums, 1e-12, intercept=False)(features)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-3)  # one direction is all there is


def test_calibration_of_errors_that_are_no_numbers():
    with pytest.raises(FitError, match="not finite"):
        calibrate(HeldOut(np.array([0.1, NAN]), np.ones(2), np.ones((2, 4)), ["p", "q"]))


@pytest.mark.parametrize("order", [0, 1])
def test_a_rival_never_takes_a_candidate_that_gives_no_number(order: int):
    rng = np.random.default_rng(0)
    good = rng.normal(size=(60, 3)) + 0.5, rng.normal(size=(60, 3))
    dead = good[0] * 1e300, good[1] * 1e300
    tried = [("good", *good), ("dead", *dead)][:: 1 if order else -1]
    validation = np.arange(60) % 4 == 0
    with np.errstate(over="ignore", invalid="ignore"):
        assert fit_bradley_terry(tried, validation).feature == "good"
    with pytest.raises(FitError, match="NaN or infinite"):
        fit_bradley_terry([("nan", np.full((60, 3), NAN), good[1])], validation)


def test_one_training_pair_is_enough_for_a_rival():
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    found = fit_bradley_terry([("x", chosen, rejected)], np.array([False, True, True]))
    assert ((chosen - rejected)[0] @ found.weights) > 0


@pytest.mark.parametrize("order", [1, -1])
def test_a_feature_that_predicts_nothing_never_wins(order: int, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    training = _Stage(run, order, dead="final:last")
    monkeypatch.setattr(probe_stage, "fold_statistics", training.statistics)
    fitted, facts = training.fit(tmp_path)
    assert fitted.feature == "2:mean"
    tried = {row["feature"]: row["pearson"] for row in facts["candidates"]}
    assert math.isnan(tried["final:last"])
    assert tried["2:mean"] > 0


def test_features_that_all_predict_nothing_are_a_fit_error(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    training = _Stage(run, 1, dead="")
    monkeypatch.setattr(probe_stage, "fold_statistics", training.statistics)
    with pytest.raises(FitError, match=r"predicts the same.*features\.response"):
        training.fit(tmp_path)


class _Stage:
    """The probe stage of a finished run, with features that are 0 everywhere at `dead` ("": all of them)."""

    def __init__(self, run: Run, order: int, dead: str) -> None:

        recipe = load_recipe(run.folder / "recipe.yaml")
        listed = recipe.features.model_copy(update={"response": recipe.features.response[::order]})
        recipe = recipe.model_copy(update={"features": listed})
        self.context = RunContext(recipe, recipe.load_objectives(), Reporter(quiet=True))
        found = {place.name: open_answers(place) for place in sorted((run.folder / "features").glob("ratings-*"))}
        self.ratings = {name: store for name, store in found.items() if store is not None}
        assert len(self.ratings) == 2
        self.dead, self.real = dead, probe_stage.fold_statistics

    def statistics(self, context: Any, ratings: Any, specs: Any, **more: Any) -> dict[Any, list[RidgeStatistics]]:
        found = self.real(context, ratings, specs, **more)
        dead = [spec for spec in found if not self.dead or str(spec) == self.dead]
        return {spec: [_dead(one) for one in folds] if spec in dead else folds for spec, folds in found.items()}

    def fit(self, folder: Path) -> Any:
        return probe_stage.fit_probe_stage(folder, self.context, self.ratings)


def _dead(one: RidgeStatistics) -> RidgeStatistics:
    sums = [{"feature_sum": p.feature_sum * 0, "moment": p.moment * 0} for p in one.parts]
    triangles = [np.zeros_like(p.triangle()) for p in one.parts]
    parts = [replace(p, triangle=lambda zeros=z: zeros, **s) for p, z, s in zip(one.parts, triangles, sums, strict=True)]
    return RidgeStatistics(one.d, one.k, tuple(parts), one.rows, one.unlabelled)


# -- parts on disk -----------------------------------------------------------------------------------------------------------


def damage_part(folder: Path, name: str, key: str, value: float) -> None:
    """Write a part again, sealed, with a number that is none."""
    tensors, facts = load_part(folder, name, json.loads((folder / f"{name}.json").read_text())["format"], remedy="")
    tensors = {k: v.copy() for k, v in tensors.items()}
    tensors[key].flat[0] = value
    format_ = facts.pop("format")
    save_part(folder, name, tensors, {k: v for k, v in facts.items() if k not in ("sha256", "tensors")}, format_)


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize(
    ("stage", "name", "key", "load"),
    [
        ("probe", "probe", "weights", load_probe),
        ("probe", "probe", "intercepts", load_probe),
        ("debias", "debias", "matrix", load_debias),
        ("gate", "gate", "layers.0.weight", load_gate),
        ("gate", "gate", "layers.1.bias", load_gate),
        ("gate", "gate", "layers.0.bias", load_gate),
        ("uncertainty", "uncertainty", "inflation", Uncertainty.load),
        ("uncertainty", "uncertainty", "parts.0.vectors", Uncertainty.load),
        ("uncertainty", "uncertainty", "correlation", Uncertainty.load),
        ("preference", "preference", "slope", load_preference),
        ("model/armorm", "preference", "slope", load_preference),
        ("model/armorm", "reference", "quantiles", Reference.load),
        ("model/armorm", "reference", "gates", Reference.load),
        ("bench", "bradley-terry", "weights", load_bradley_terry),
    ],
)
def test_a_part_with_a_number_that_is_none_is_refused_by_name(
    stage: str, name: str, key: str, load: Callable[[Path], Any], value: float, run: Run, tmp_path: Path
):
    for end in ("json", "safetensors"):
        shutil.copy(run.folder / stage / f"{name}.{end}", tmp_path)
    load(tmp_path)
    damage_part(tmp_path, name, key, value)
    with pytest.raises(CheckpointError, match=f"{name}.*(NaN|infinit)"):
        load(tmp_path)


@pytest.mark.parametrize(("fact", "value"), [("temperature", 0.0), ("temperature", 1e-46), ("scale", -1.0), ("scale", 1e300)])
def test_a_gates_own_numbers_are_looked_at(fact: str, value: Any, run: Run, tmp_path: Path):
    for end in ("json", "safetensors"):
        shutil.copy(run.folder / "gate" / f"gate.{end}", tmp_path)
    tensors, facts = load_part(tmp_path, "gate", parts_module.FORMAT, remedy="")
    facts = {k: v for k, v in facts.items() if k not in ("sha256", "tensors", "format")} | {fact: value}
    save_part(tmp_path, "gate", tensors, facts, parts_module.FORMAT)
    with pytest.raises(CheckpointError, match=r"gate\.json: .*temperature"):
        load_gate(tmp_path)


def test_what_is_no_number_is_not_saved(tmp_path: Path, run: Run):
    probe, feature = load_probe(run.folder / "probe")
    object.__setattr__(probe, "weights", probe.weights * NAN)
    with pytest.raises(FitError, match="probe: weights: NaN or infinity"):
        save_probe(tmp_path, probe, feature)
    gate = load_gate(run.folder / "gate")
    object.__setattr__(gate, "weights", tuple(w * NAN for w in gate.weights))
    with pytest.raises(FitError, match=r"gate: layers\.0\.weight"):
        save_gate(tmp_path, gate)
    rival = load_bradley_terry(run.folder / "bench")
    assert rival is not None
    with pytest.raises(FitError, match="weights"):
        save_bradley_terry(tmp_path, replace(rival, weights=rival.weights * NAN))
    known = Uncertainty.load(run.folder / "uncertainty")
    assert known is not None
    posterior = replace(known.posterior, inflation=known.posterior.inflation * INF)
    with pytest.raises(FitError, match="inflation"):
        replace(known, posterior=posterior).save(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FitError, match="NaN"):
        Probe(TWO, np.full((2, 3), NAN), np.zeros(2), np.ones(2))
    with pytest.raises(FitError, match="NaN"):
        Debias(TWO, (), np.full((2, 2), NAN))


# -- models ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def model_folder(run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.folder / "model", tmp_path / "model"))


def told(folder: Path) -> str:
    """What loading the folder says, which is an error that names it or a file of it."""
    (folder / "SHA256SUMS").unlink(missing_ok=True)  # the change is meant
    with pytest.raises(CheckpointError) as caught:
        RewardModel.from_pretrained(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        (f, v)
        for f in ("gating_temperature", "gate_scale")
        for v in (0.0, -1.0, 1e-46, 1e300, INF, NAN)
        if v != 1e-46 or f[4] == "n"
    ],
)
def test_a_config_with_a_gate_that_weighs_nothing_is_refused(fact: str, value: Any, model_folder: Path):
    path = model_folder / "config.json"
    facts = json.loads(path.read_text()) | {fact: value}
    path.write_text(json.dumps(facts))
    assert fact in told(model_folder)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize(
    "key", ["regression_layer.weight", "reward_transform_matrix", "gating.layers.0.weight", "gating.layers.0.bias"]
)
def test_heads_with_numbers_that_are_none_are_refused(key: str, value: float, model_folder: Path):
    path = model_folder / "model.safetensors"
    tensors = load_file(path)
    tensors[key].view(-1)[0] = value
    save_file(tensors, path, metadata={"format": "pt"})
    assert key in told(model_folder) or "model.safetensors" in told(model_folder)


@pytest.mark.parametrize("value", [NAN, INF, 0.0, -3.0])
def test_a_beta_that_is_none_is_refused(value: float, model_folder: Path):
    path = model_folder / "model.safetensors"
    tensors = load_file(path)
    tensors["gating.logit_scale"].fill_(value)
    save_file(tensors, path, metadata={"format": "pt"})
    said = told(model_folder)
    assert "gating.logit_scale" in said or "model.safetensors" in said


def test_an_objective_of_weight_nothing_may_have_a_logit_of_minus_infinity(run: Run):
    heads = load_arrays(run.folder / "model" / "model.safetensors")
    assert np.isneginf(heads["gating.layers.1.bias"]).any()  # the nuisance of the small run
    RewardModel.from_pretrained(run.folder / "model")


# -- devices -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nonsense", "meta", "cuda:99", "", "cpu:x", "vulkan", "a" * 5000])
def test_devices_that_are_not_here(name: str):
    with pytest.raises(BackboneError, match=r"device .* can't be used here") as caught:
        device_of(name)
    assert len(str(caught.value)) < 600
    assert device_of("cpu") == torch.device("cpu")


# -- selections, numbers in texts, JSON --------------------------------------------------------------------------------------


def test_no_selection_takes_a_score_that_is_none(tmp_path: Path):
    path = tmp_path / "scored.jsonl"
    path.write_text(
        '{"prompt": "p", "responses": ["a", "b", "c", "d"], "scores": [NaN, 1.0, Infinity, 0.5]}\n'
        '{"prompt": "q", "responses": ["a", "b"], "scores": [-Infinity, NaN]}\n',
        encoding="utf-8",
    )
    kept, counts = select(path, keep_top=0.5)
    assert [row["score"] for row in kept] == [1.0]
    assert (counts.answers, counts.unscored) == (2, 4)
    found, _ = build_pairs(path, every=True)
    assert [(row["score_chosen"], row["score_rejected"]) for row in found] == [(1.0, 0.5)]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_bounds_of_a_selection_are_numbers(value: float, tmp_path: Path, armorm: Armorm):
    path = tmp_path / "scored.jsonl"
    write_lines(path, [{"prompt": "p", "responses": ["a", "b"], "scores": [1.0, 2.0]}])
    for wrong in ({"min_score": value}, {"keep_top": value}):
        with pytest.raises(DataError, match=next(iter(wrong))):
            select(path, **wrong)
    with pytest.raises(DataError, match="margin"):
        build_pairs(path, margin=value)
    for words in (
        ("select", path, f"--min-score={value}"),
        ("select", path, f"--keep-top={value}"),
        ("pairs", path, f"--margin={value}"),
    ):
        assert armorm(*words)[:2] == (2, "")


@pytest.mark.parametrize(
    "options", [("--near", "nan"), ("--near", "inf"), ("--near", "0"), ("--missing", "nan"), ("--missing", "inf")]
)
def test_numbers_of_other_commands_are_numbers(options: tuple[str, str], rows: Path, armorm: Armorm):
    code, out, _ = armorm("data", "inspect", rows / "pairs.jsonl", *options)
    assert (code, out) == (2, "")


@pytest.mark.parametrize("text", ["1_0", "nan", "inf", "½", "１", "0x1", "1e400", "", "1 0", "--1", "9" * 10_000 + "x"])
def test_texts_that_are_no_number_are_no_rating(text: str):
    objective = Objective(name="a", min=0, max=10)
    with pytest.raises(ValueError, match=r".") as caught:
        objective.raw(text)
    assert len(str(caught.value)) < 300
    assert [objective.raw(one) for one in ("1", " 2.5 ", "+3", "1e0", ".5", "4.")] == [1, 2.5, 3, 1, 0.5, 4]
    assert plain_number("-1.5e1") == -15


def test_json_has_no_word_for_what_is_no_number():
    facts = {"a": NAN, "b": [INF, {"c": -INF, "d": np.float64("nan")}], "e": (1.5, True, None, "NaN")}
    assert json.loads(json_text(facts), parse_constant=pytest.fail) == {
        "a": None,
        "b": [None, {"c": None, "d": None}],
        "e": [1.5, True, None, "NaN"],
    }


# -- names -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", " ", " a", "a ", ".", "..", "a/b", "/a", "a\\b", "a\0b", "a\nb", "a\x7fb", "\ud800", "a\u2028b", "x" * 101, "ü" * 51],
)
def test_names_that_are_no_part_of_a_path(name: str):
    assert name_fault(name)


@pytest.mark.parametrize("name", ["a", "helpsteer2", "a b", "é", "...", "-x", "x" * 100, "日本", "[red]", "a:b"])
def test_names_that_are_one_part_of_a_path(name: str):
    assert not name_fault(name)


def test_long_values_are_cut_in_errors():
    for value in ("x" * 100_000, ["x" * 100_000], {"a": "x" * 100_000}, list(range(10_000)), 10**7000, [10**7000], b"x" * 9999):
        assert len(shown(value)) < 250
    assert shown("a") == "'a'"
    assert shown(1.5) == "1.5"
    with pytest.raises(RecipeError):
        raise RecipeError(shown("\ud800"))
