"""A run whose gate is held to one weight vector, of several seeds, and every method on sources that it has not seen."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_run import _pair, write_lines, write_recipe, write_rows

from armorm import RewardModel
from armorm.data.splits import Split
from armorm.errors import CheckpointError, RecipeError
from armorm.fit.debias import Debias
from armorm.model.layouts.released import released_faults
from armorm.progress import Reporter
from armorm.recipe import UNSEEN, load_recipe
from armorm.report.gate_tables import choice_verdict
from armorm.report.run_results import GateChoice, RunResults
from armorm.report.run_tables import run_report
from armorm.run import unseen
from armorm.run.gate_stage import Gates
from armorm.run.train import Run, Training, train
from armorm.scoring.profile import Profile

QUIET = Reporter(quiet=True)
NEW = ("forum", "panel", "tutor")
GATE = {"start": "one-weight", "kl": "auto", "seeds": 3, "combine": "mean", "weigh": "prompts"}
ANSWER = [{"role": "user", "content": "hello 3 + 3 is?"}, {"role": "assistant", "content": "fine thank you"}]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run's rows, and three sources more of pairs whose prompts nobody rated; one prompt stands in two of them."""
    folder = tmp_path_factory.mktemp("many")
    write_rows(folder)
    draw = random.Random(5)
    for n, name in enumerate(NEW):
        rows = [_pair(draw, 1000 * (n + 1) + i, f"{name}{i}") for i in range(45)]
        rows += [_pair(draw, 999, f"{name}-shared")] if n < 2 else []
        write_lines(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def recipe(many: Path, tiny_folder: Path):
    pairs = [{"path": str(many / f"{name}.jsonl")} for name in ("pairs", *NEW)]
    return load_recipe(write_recipe(many, tiny_folder, pairs=pairs, gate=GATE, unseen_sources=True))


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe, tmp_path_factory.mktemp("runs") / "anchored", reporter=QUIET)


# -- the run --------------------------------------------------------------------------------------------------------------------


def test_the_results_say_how_the_strength_was_chosen(whole: Run):
    gate = whole.results.gate
    assert (gate.start, gate.chosen_seed, gate.best_step) == ("one-weight", None, None)
    choice = gate.choice
    assert choice is not None
    assert gate.kl == choice.chosen
    assert choice.kind == "sources"
    assert {part.name for part in choice.parts} == {"pairs", *NEW}
    assert [one.kl for one in choice.strengths] == ["0", "0.1", "0.3", "1", "3", "inf"]
    means = [np.mean(one.loss) for one in choice.strengths]
    assert choice.best == choice.strengths[int(np.argmin(means))].kl
    assert choice.gain is not None
    assert choice.gain.loss == pytest.approx(means[-1] - min(means[:-1]))
    assert choice.steps == 40


def test_results_and_recipe_are_json_and_yaml_that_read_back(whole: Run):
    text = (whole.folder / "report" / "results.json").read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert RunResults.model_validate(json.loads(text)).to_json() == whole.results.to_json()
    assert load_recipe(whole.folder / "recipe.yaml").gate.kl == "auto"


def test_a_second_run_computes_nothing(whole: Run, recipe):
    assert train(recipe, whole.folder, reporter=QUIET).computed == ()


def test_the_report_says_it_in_words_and_tables(whole: Run):
    report = run_report(whole.results)
    assert {"gate-choice", "all-sections", f"suite {UNSEEN}"} <= {grid.name for grid in report.grids}
    said = " ".join(report.sentences)
    assert "earn" in said
    assert "sections alike" in said
    page = (whole.folder / "report" / "report.html").read_text()
    assert "How strongly the gate is held to one weight vector" in page
    assert "All sections alike" in page
    assert f"| {whole.results.gate.kl}" in (whole.folder / "report" / "report.md").read_text()


def test_every_source_is_judged_by_methods_that_have_not_seen_it(whole: Run):
    (suite,) = (one for one in whole.results.suites if one.name == UNSEEN)
    assert suite.methods[0].method == "armorm"
    assert len(suite.methods) == 8
    assert set(suite.methods[0].sections) == set(NEW)
    assert suite.n == 45 * 3 + 2
    assert suite.methods[0].versus_bradley_terry is not None
    (warning,) = (one for one in whole.results.warnings if one.startswith(UNSEEN))
    assert "pairs is not left out: it has" in warning
    assert {one.suite for one in whole.results.length} >= {UNSEEN}


def test_all_sections_are_those_of_all_suites(whole: Run):
    every = whole.results.all_sections
    assert every is not None
    expected = {f"{one.name}: {section}" for one in whole.results.suites for section in one.methods[0].sections}
    assert set(every.sections) == expected
    ours = every.methods[0]
    values = [figure.value for one in whole.results.suites for figure in one.methods[0].sections.values()]
    assert ours.mean.value == pytest.approx(np.mean(values))


def test_what_is_fitted_without_a_source_has_no_prompt_of_it(whole: Run, recipe, monkeypatch):
    training = Training(recipe, whole.folder, whole.folder / "features", QUIET)
    training.run()
    fit_gates, fit_rival, fit_debias = unseen.fit_gates, unseen.fit_bradley_terry_stage, unseen.fit_debias_stage
    seen = {"gates": [], "rival": [], "debias": []}

    def gates(probe, debias, pairs, *rest, **more):
        seen["gates"].append(pairs)
        return fit_gates(probe, debias, pairs, *rest, **more)

    def rival(pairs, *rest, **more):
        seen["rival"].append(pairs)
        return fit_rival(pairs, *rest, **more)

    def debiased(folder, context, probe, ratings, pairs, **padded):
        seen["debias"].append(pairs)
        return fit_debias(folder, context, probe, ratings, pairs, **padded)

    for name, function in (("fit_gates", gates), ("fit_bradley_terry_stage", rival), ("fit_debias_stage", debiased)):
        monkeypatch.setattr(unseen, name, function)
    parts = training.probe.value, training.debias.value, training.pairs, training.stores
    found = unseen.judge_unseen(whole.folder, training.context, *parts)
    assert [len(seen[name]) for name in ("gates", "rival", "debias")] == [6, 3, 3]
    pairs = training.pairs
    for i, source in enumerate(NEW):
        own = {group for group, name in zip(pairs.groups, pairs.sources, strict=True) if name == source}
        for rest in (seen["gates"][2 * i], seen["gates"][2 * i + 1], seen["rival"][i], seen["debias"][i]):
            assert not own & set(rest.groups)
            assert len(rest) == sum(group not in own for group in pairs.groups)
    assert found.judged is not None
    table = next(one for one in whole.results.to_json()["suites"] if one["name"] == UNSEEN)
    assert RunResults.model_validate(whole.results.to_json() | {"suites": [found.judged.table]}).to_json()["suites"] == [table]
    assert not [p for p in whole.folder.iterdir() if "debias" in p.name and p.name != "debias"]


def test_without_the_key_nothing_is_left_out(run: Run):
    assert run.results.all_sections is None
    assert UNSEEN not in {one.name for one in run.results.suites}
    gate = run.results.to_json()["gate"]
    assert not {"start", "kl", "combined", "choice"} & set(gate)
    assert "all_sections" not in run.results.to_json()
    assert "gate_blocks" not in (run.folder / "model" / "config.json").read_text()


def test_one_source_can_not_be_left_out(many: Path, tiny_folder: Path, tmp_path: Path):
    pairs = [{"path": str(many / "forum.jsonl")}]
    recipe = load_recipe(write_recipe(tmp_path, tiny_folder, **_paths(many), pairs=pairs, unseen_sources=True))
    found = train(recipe, tmp_path / "run", reporter=QUIET).results
    assert UNSEEN not in {one.name for one in found.suites}
    assert any("forum is not left out: without it and its prompts" in warning for warning in found.warnings)
    assert found.all_sections is not None


def _paths(folder: Path) -> dict[str, object]:
    return {
        "objectives": str(folder / "objectives.json"),
        "ratings": [{"path": str(folder / "ratings-*.jsonl")}],
        "bench": [{"name": "small-bench", "source": {"path": str(folder / "bench.jsonl")}}],
    }


# -- the recipe -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [".inf", "inf", '"inf"', ".Inf"])
def test_infinity_is_read_from_yaml_and_written_back(tiny_folder: Path, many: Path, tmp_path: Path, written: str):
    path = write_recipe(tmp_path, tiny_folder, **_paths(many), pairs=[{"path": str(many / "pairs.jsonl")}])
    path.write_text(path.read_text() + "\n")
    path.write_text(path.read_text().replace("gate:\n", f"gate:\n  kl: {written}\n"))
    recipe = load_recipe(path)
    assert recipe.gate.kl == "inf"
    assert recipe.gate.strength == math.inf
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(again) == recipe
    assert json.dumps(recipe.model_dump(mode="json"), allow_nan=False)


def test_faults_of_the_new_keys_are_told_at_once(tiny_folder: Path, many: Path, tmp_path: Path):
    gate = {"kl": -1, "start": "zero", "combine": "all"}
    bench = [{"name": UNSEEN, "source": {"path": str(many / "bench.jsonl")}}]
    with pytest.raises(RecipeError) as caught:
        load_recipe(write_recipe(tmp_path, tiny_folder, **_paths(many), pairs=[{"path": str(many / "pairs.jsonl")}], gate=gate))
    said = str(caught.value)
    assert "3 faults" in said
    assert "gate.kl: must be a number from 0 to 1,000,000, inf (no gate) or auto (got -1)" in said
    kept = {**_paths(many), "bench": bench, "pairs": [{"path": str(many / "pairs.jsonl")}]}
    with pytest.raises(RecipeError, match="'unseen sources' is what the sources that are left out are called"):
        load_recipe(write_recipe(tmp_path, tiny_folder, **kept))


# -- the model ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held(recipe, whole: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run with a strength that is given, so that there is a gate of three seeds in it."""
    own = recipe.model_copy(update={"gate": replace(recipe.gate, kl=0.1), "unseen_sources": False})
    return train(own, tmp_path_factory.mktemp("runs") / "held", features=whole.folder / "features", reporter=QUIET)


def test_a_mean_of_gates_is_one_network_whose_members_can_be_told(held: Run):
    gate, model = Gates.load(held.folder / "gate").gate, RewardModel.from_pretrained(held.folder / "model")
    assert (held.results.gate.combined, gate.blocks, model.config.gate_blocks) == (3, 3, 3)
    assert model.config.gate_hidden == [3 * 17]
    table = model.engine().score([ANSWER])
    prompt, members = table.trained.gate, table.trained.members
    assert members.shape == (1, 3, 3)
    np.testing.assert_allclose(members.sum(dim=2), 1.0, atol=1e-6)
    live = [0, 2]  # verbosity is zeroed, and weighs nothing
    logits = members[:, :, live].log()
    logits = (logits - logits.mean(dim=2, keepdim=True)).mean(dim=1)
    np.testing.assert_allclose(logits.softmax(dim=1), prompt[:, live], atol=1e-5)
    assert (members[:, :, 1] == 0).all()
    score = table[0]
    names = model.objectives.names
    expected = members[0].double().std(dim=0).tolist()
    assert score.gate_std == pytest.approx(dict(zip(names, expected, strict=True)))
    assert score.std_from_gate is not None
    matrix = model.reward_transform_matrix.double().numpy()
    scores = members[0].double().numpy() @ (matrix.T @ table.trained.terms[0].double().numpy())
    assert score.std_from_gate == pytest.approx(scores.std(ddof=1), rel=1e-5)
    assert score.score == pytest.approx(float(table.trained.score[0]), rel=1e-5)
    assert {"gate_std", "std_from_gate"} <= set(score.to_json())


def test_the_spread_is_that_of_steered_weights_under_a_profile(held: Run):
    model, name = RewardModel.from_pretrained(held.folder / "model"), "panel-quality"
    profile = Profile.from_json({"fix": {name: 0.5}}, where="test")
    score = model.score(ANSWER, profile=profile)
    assert score.gate_std[name] == pytest.approx(0, abs=1e-7)
    alone = model.score(ANSWER, profile=Profile.from_json({"fix": _one(model)}, where="test"))
    assert alone.std_from_gate == pytest.approx(0, abs=1e-6)
    assert model.score(ANSWER).std_from_gate > 0


def _one(model: RewardModel) -> dict[str, float]:
    first, *others = model.objectives.names
    return {first: 1.0, **dict.fromkeys(others, 0.0)}


def test_a_gate_of_one_seed_has_no_spread(run: Run):
    score = RewardModel.from_pretrained(run.folder / "model").score(ANSWER)
    assert (score.gate_std, score.std_from_gate) == ({}, None)
    assert not {"gate_std", "std_from_gate"} & set(score.to_json())


def test_the_number_of_gates_survives_saving_and_a_wrong_one_is_named(held: Run, tmp_path: Path):
    model = RewardModel.from_pretrained(held.folder / "model")
    model.save_pretrained(tmp_path / "again")
    again = RewardModel.from_pretrained(tmp_path / "again")
    assert again.score(ANSWER).gate_std == model.score(ANSWER).gate_std
    config = tmp_path / "again" / "config.json"
    facts = json.loads(config.read_text())
    (tmp_path / "again" / "SHA256SUMS").unlink()
    for count in (2, 17, 51, 0, "three"):
        config.write_text(json.dumps(facts | {"gate_blocks": count}))
        with pytest.raises(CheckpointError):
            RewardModel.from_pretrained(tmp_path / "again")
    config.write_text(json.dumps({k: v for k, v in facts.items() if k != "gate_blocks"}))
    alone = RewardModel.from_pretrained(tmp_path / "again").score(ANSWER)
    assert alone.gate_std == {}
    assert alone.score == pytest.approx(model.score(ANSWER).score, abs=1e-6)
    assert not [fault for fault in released_faults(model) if "hidden layers" in fault]
    model.config.gate_hidden = [20_000]
    assert any("a width of 20,000, there at most 10,000" in fault for fault in released_faults(model))


def test_no_gate_is_a_model_like_any_other(recipe, whole: Run, tmp_path: Path):
    own = recipe.model_copy(update={"gate": replace(recipe.gate, kl="inf"), "unseen_sources": False})
    found = train(own, tmp_path / "run", features=whole.folder / "features", reporter=QUIET)
    gates = Gates.load(tmp_path / "run" / "gate")
    assert gates.gate.weights_for(np.zeros((1, 0))).tolist() == gates.fixed.weights_for(np.zeros((1, 0))).tolist()
    assert (found.results.gate.kl, found.results.gate.curves) == ("inf", ())
    one, two = (RewardModel.from_pretrained(tmp_path / "run" / "model").score(a) for a in (ANSWER, ANSWER))
    assert one.gate == two.gate
    for suite in found.results.suites:
        ours, fixed = (next(m for m in suite.methods if m.method == name) for name in ("armorm", "armorm-no-gate"))
        assert ours.overall == fixed.overall


def test_the_debiased_and_the_raw_gates_are_held_alike(whole: Run):
    """The ablation changes one thing: the strength is chosen once."""
    kl = whole.results.gate.kl
    raw = Gates.load(whole.folder / "gate" / "not-debiased").gate
    if kl == "inf":
        assert raw.width == 0
    else:
        assert raw.blocks == 3


def test_the_sentence_follows_the_numbers():
    rows = [{"kl": kl, "loss": [0.6, 0.6], "accuracy": [0.6, 0.6], "excess": 0.0, "error": 0.0} for kl in ("0.3", "inf")]
    parts = [{"name": name, "n": 100} for name in "ab"]
    about = {"kind": "sources", "parts": parts, "steps": 500, "strengths": rows, "best": "0.3"}

    def said(chosen, **gain):
        return choice_verdict(GateChoice.model_validate(about | {"chosen": chosen, "gain": gain or None}))

    assert said("0.3", loss=0.01, error=0.004, accuracy=0.02).startswith("The gate earns its keep on sources")
    assert "0.0100 lower" in said("0.3", loss=0.01, error=0.004, accuracy=0.02)
    assert said("inf", loss=-0.01, error=0.004, accuracy=-0.02).startswith("The gate does not earn its keep")
    assert "0.0100 higher" in said("inf", loss=-0.01, error=0.004, accuracy=-0.02)
    assert "within chance" in said("3", loss=0.001, error=0.004, accuracy=0.0)
    assert said("inf") == "There were too few pairs to leave any out: the gate is one weight vector, the same for every prompt."


def test_splits_stay_as_they_are_without_a_source(recipe, whole: Run):
    training = Training(recipe, whole.folder, whole.folder / "features", QUIET)
    training.run()
    left_out = unseen._LeftOut(
        training.context, training.probe.value, Debias.identity(training.objectives), training.pairs, training.stores
    )
    for source in NEW:
        own = left_out.judged(source)
        assert {training.pairs.sides[i] for i in np.flatnonzero(own)} == set(Split)
    assert all(training.pairs.sides[i] is Split.TEST for i in np.flatnonzero(left_out.judged("pairs")))
