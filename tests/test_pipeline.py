"""The whole: raw rows → features → probe → debiasing → gate → model → bench → report, on a tiny random decoder, in seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_run import OBJECTIVES, read_lines, write_lines, write_recipe, write_rows

from armorm import RewardModel
from armorm.errors import DataError, RecipeError
from armorm.features import storing
from armorm.jobs.verify import verify
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.report.run_results import RunResults
from armorm.run import extraction
from armorm.run import train as train_module
from armorm.run.train import Run, train

QUIET = Reporter(quiet=True)
STAGES = ("probe", "uncertainty", "debias", "gate", "preference", "model", "bench", "report")


def again(run: Run, rows: Path, backbone: Path, out: Path, **changes: Any) -> Run:
    """A run with another recipe that finds this run's folder as it was."""
    shutil.copytree(run.folder, out)
    return train(load_recipe(write_recipe(rows, backbone, **changes)), out, features=run.folder / "features", reporter=QUIET)


@pytest.fixture
def no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the backbone was loaded")

    monkeypatch.setattr(extraction, "load_backbone", refuse)


def conversation(row: dict[str, Any], side: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]


def test_a_run_leaves_every_part(run: Run):
    assert run.computed == STAGES
    found = {p.name for p in run.folder.iterdir()}
    assert found == {"recipe.yaml", "SHA256SUMS", "features", "statistics", *STAGES}
    assert run.report.is_file()
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {p.name for p in (run.folder / "model").iterdir()}
    assert not [p for p in run.folder.rglob("*") if p.suffix in {".pkl", ".pt", ".bin", ".part"}]


def test_the_models_card_says_what_was_measured_on_held_out_rows(run: Run):
    results, text = run.results, (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    facts = {
        (one["metric"], one["on"]): one for one in json.loads((run.folder / "model" / "config.json").read_text())["measured"]
    }
    held_out = next(suite for suite in results.suites if suite.name == "held-out pairs")
    ours = next(method for method in held_out.methods if method.method == "armorm")
    assert facts["accuracy", "held-out pairs"]["value"] == pytest.approx(ours.overall.value)
    assert facts["pearsonr", "judge-quality"]["value"] == pytest.approx(
        next(o.pearson.value for o in results.probe.objectives if o.name == "judge-quality")
    )
    assert "| accuracy | held-out pairs |" in text
    assert [file.name for file in (run.folder / "model").glob("*.safetensors")] == ["model.safetensors"]


def test_results_hold_every_part_of_the_contract(run: Run):
    results = run.results.to_json()
    assert json.loads((run.folder / "report" / "results.json").read_text()) == results
    assert RunResults.model_validate(results).to_json() == results
    assert results["format"] == 1
    assert results["name"] == "small"
    for key in ("commit", "machine", "command", "version", "created"):
        assert key in results, key
    assert set(results["seconds"]) == {"features", *STAGES[:-1]}
    assert {"model", "dtype", "layers", "width", "tokens", "tokens_per_second", "truncated"} <= set(results["backbone"])
    assert results["backbone"]["tokens"] > 0
    names = [o["name"] for o in OBJECTIVES]
    assert [o["name"] for o in results["data"]["objectives"]] == names
    assert [o["name"] for o in results["probe"]["objectives"]] == names
    for row in results["probe"]["objectives"]:
        for key in ("pearson", "spearman", "r2", "rmse_raw"):
            assert set(row[key]) == {"value", "low", "high"}
    assert [o["name"] for o in results["debias"]["objectives"]] == names
    assert {"curves", "chosen_seed", "best_step", "spread", "by_source"} <= set(results["gate"])
    assert {"suites", "length", "planted", "examples", "warnings"} <= set(results)
    assert results["planted"] is None  # there is no planted truth in this set


def test_sources_say_what_was_dropped_and_why(run: Run):
    sources = {(s.name, s.kind): s for s in run.results.data.sources}
    assert set(sources) == {
        ("ratings-judge", "ratings"),
        ("ratings-panel", "ratings"),
        ("pairs", "pairs"),
        ("small-bench", "bench"),
    }
    judge = sources["ratings-judge", "ratings"]
    assert judge.rows == 61
    assert judge.drops == {"rating-off-scale": 1, "prompt-in-benchmark": 1}
    assert any("broken" in f or "rating-off-scale" in f for f in run.results.faults)
    for source in sources.values():
        assert source.rows == source.kept + sum(source.drops.values())
    splits = run.results.data.splits["ratings"]
    assert splits["test"] > 0
    assert sum(splits.values()) == judge.kept + sources["ratings-panel", "ratings"].kept


def test_the_probe_finds_what_the_ratings_hold(run: Run):
    chosen = {c.feature: c.pearson for c in run.results.probe.candidates}
    assert set(chosen) == {"2:mean", "final:last"}
    assert run.results.probe.feature == max(chosen, key=chosen.__getitem__)
    assert max(chosen.values()) > 0.6


def test_debiasing_brings_the_correlation_to_zero_on_the_reference(run: Run):
    debias = run.results.debias
    quality = [o.reference["panel-verbosity"] for o in debias.objectives if o.name != "panel-verbosity"]
    assert len(quality) == 2
    assert all(abs(c.after) < 0.01 for c in quality)
    assert max(abs(c.before) for c in quality) > 0.05


def test_suites_have_every_method_and_section(run: Run):
    suites = {s.name: s for s in run.results.suites}
    assert set(suites) == {"held-out pairs", "small-bench"}
    methods = {m.method: m for m in suites["small-bench"].methods}
    assert len(methods) == 8
    assert {"armorm", "armorm-not-debiased", "armorm-no-gate", "bradley-terry", "length"} <= set(methods)
    for method in methods.values():
        assert set(method.sections) == {"chat", "code"}
        assert method.overall.n == 24
    assert methods["armorm"].overall.value > 0.7  # random weights: bags of tokens suffice here
    assert methods["bradley-terry"].versus_bradley_terry is None


def test_the_report_opens_without_a_network(run: Run):
    page = run.report.read_text(encoding="utf-8")
    assert "small-bench" in page
    assert 'src="http' not in page
    assert "<script" not in page


def test_a_second_run_computes_nothing(run: Run, rows: Path, tiny_folder: Path, no_backbone: None):
    recipe = load_recipe(write_recipe(rows, tiny_folder))
    same = train(recipe, run.folder, reporter=QUIET)
    assert same.computed == ()
    assert same.results.to_json() == run.results.to_json()


def test_sources_in_another_order_are_another_run(run: Run, rows: Path, tiny_folder: Path, tmp_path: Path):
    """Batches, and the tables' order, follow the sources'."""
    files = [{"path": str(rows / f"ratings-{name}.jsonl")} for name in ("panel", "judge")]
    other = again(run, rows, tiny_folder, tmp_path / "other", ratings=files)  # the pattern sorts them: judge, panel
    assert other.computed == STAGES
    assert [s.name for s in other.results.data.sources if s.kind == "ratings"] == ["ratings-panel", "ratings-judge"]


def test_rows_that_are_left_out_and_names_reach_the_report(
    run: Run, rows: Path, tiny_folder: Path, tmp_path: Path, no_backbone: None
):
    mine = Path(shutil.copytree(rows, tmp_path / "rows"))
    with (mine / "ratings-panel.jsonl").open("a") as file:
        file.write("{\n")
    shutil.copytree(run.folder, tmp_path / "other")
    recipe = load_recipe(write_recipe(mine, tiny_folder, name="other"))
    other = train(recipe, tmp_path / "other", features=run.folder / "features", reporter=QUIET)
    assert other.computed == ("bench", "report")  # the suite's file has another name
    (panel,) = (s for s in other.results.data.sources if s.name == "ratings-panel")
    assert panel.drops["not-json"] == 1
    assert other.results.name == "other"


def test_groups_of_another_source_cost_no_decoder(run: Run, rows: Path, tiny_folder: Path, tmp_path: Path, monkeypatch):
    """A new source ties two prompts of the others together: their rows stay where they are, in the stores they have."""
    mine = Path(shutil.copytree(rows, tmp_path / "rows"))
    known = read_lines(mine / "ratings-panel.jsonl")
    tied = [{"prompt": known[i]["prompt"], "response": "new one", "judge-quality": "3", "group": "tie"} for i in (3, 30)]
    write_lines(mine / "ratings-tied.jsonl", tied)
    features = Path(shutil.copytree(run.folder / "features", tmp_path / "features"))
    before, extracted, real = {at.name for at in features.iterdir()}, [], storing._find_or_compute

    def counted(home: Path, *more: Any) -> Any:
        extracted.append(home.name.rsplit("-", 1)[0])
        return real(home, *more)

    monkeypatch.setattr(storing, "_find_or_compute", counted)
    train(load_recipe(write_recipe(mine, tiny_folder)), tmp_path / "other", features=features, reporter=QUIET)
    new = {at.name for at in features.iterdir()} - before
    assert {name.rsplit("-", 1)[0] for name in new} == {"ratings-tied"}
    assert set(extracted) == {"ratings-tied"}


def test_a_run_that_was_stopped_with_another_recipe_is_unfinished_and_not_damaged(
    copied: Path, rows: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    assert verify(copied).whole

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module.Training, "_fit_gates", stop)
    recipe = load_recipe(write_recipe(rows, tiny_folder, gate={"steps": 20}))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, copied, reporter=QUIET)
    faults = [fault for one in verify(copied).checked for fault in one.faults]
    assert [(fault.file, fault.fault) for fault in faults] == [
        ("recipe.yaml", "is not finished (the run that wrote it was stopped)")
    ]
    monkeypatch.undo()
    train(recipe, copied, reporter=QUIET)
    assert verify(copied).whole


def test_other_gate_settings_keep_features_probe_and_debiasing(run: Run, rows: Path, tiny_folder: Path, tmp_path: Path):
    before = {p.name for p in (run.folder / "features").iterdir()}
    other = again(run, rows, tiny_folder, tmp_path / "other", gate={"steps": 20})
    assert other.computed == ("gate", "preference", "model", "bench", "report")
    assert {p.name for p in (run.folder / "features").iterdir()} == before
    assert other.results.probe.to_json() == run.results.probe.to_json()
    assert max(other.results.gate.curves[0].steps) <= 20


def test_other_benchmarks_leave_the_model_alone(run: Run, rows: Path, tiny_folder: Path, tmp_path: Path, no_backbone: None):
    other = again(run, rows, tiny_folder, tmp_path / "other", examples=1)
    assert other.computed == ("bench", "report")
    assert len(other.results.examples) == 1


def test_the_saved_model_scores_as_the_pipeline_did(run: Run, rows: Path):
    model = RewardModel.from_pretrained(run.folder / "model")
    bench = read_lines(rows / "bench.jsonl")
    by_texts = {(r["prompt"], r["chosen"], r["rejected"]): r for r in bench}
    examples = run.results.examples
    assert len(examples) >= 2
    for example in examples:
        texts = {a.label: a for a in example.answers}
        row = by_texts[example.prompt.removeprefix("user: "), texts["chosen"].text, texts["rejected"].text]
        for side in ("chosen", "rejected"):
            score = model.score(conversation(row, side))
            assert score.score == pytest.approx(texts[side].score, abs=1e-3)
            terms = {t.term: t.contribution for t in texts[side].terms}
            assert score.contributions == pytest.approx(terms, abs=1e-3)
            assert sum(terms.values()) == pytest.approx(texts[side].score, abs=1e-9)


def test_permuted_labels_leave_the_probe_with_nothing(run: Run, tiny_folder: Path, tmp_path: Path):
    write_rows(tmp_path / "rows", shuffled=True)
    shuffled = train(load_recipe(write_recipe(tmp_path / "rows", tiny_folder)), tmp_path / "run", reporter=QUIET)
    told, silent = (max(c.pearson for c in r.results.probe.candidates) for r in (run, shuffled))
    assert silent < 0.3
    assert told > silent + 0.3


def test_without_debiasing_the_score_moves(run: Run, rows: Path, tiny_folder: Path, tmp_path: Path):
    plain = again(run, rows, tiny_folder, tmp_path / "plain", debias={"nuisances": []})
    assert plain.computed == ("debias", "gate", "preference", "model", "bench", "report")
    assert plain.results.debias is None
    one = conversation(read_lines(rows / "bench.jsonl")[0], "chosen")
    scores = [RewardModel.from_pretrained(r.folder / "model").score(one) for r in (run, plain)]
    assert scores[0].coefficients["panel-verbosity"] != pytest.approx(scores[1].coefficients["panel-verbosity"], abs=1e-4)
    assert abs(scores[0].score - scores[1].score) > 1e-4


def test_length_can_be_taken_out_as_a_computed_nuisance(run: Run, rows: Path, tiny_folder: Path, tmp_path: Path):
    """Effect of `response-tokens`: a further term in the score, correlation with it zero on the reference."""
    lengths = again(run, rows, tiny_folder, tmp_path / "lengths", debias={"nuisances": ["response-tokens"]})
    for objective in lengths.results.debias.objectives:
        assert abs(objective.reference["response-tokens"].after) < 0.01
    model = RewardModel.from_pretrained(lengths.folder / "model")
    score = model.score(conversation(read_lines(rows / "bench.jsonl")[0], "chosen"))
    assert score.terms["response-tokens"] > 0
    assert sum(score.contributions.values()) == pytest.approx(score.score, abs=1e-9)


def test_a_source_without_a_usable_row_is_named(rows: Path, tiny_folder: Path, tmp_path: Path):
    (tmp_path / "nothing.jsonl").write_text('{"prompt": "hello", "response": "fine"}\n')
    recipe = load_recipe(write_recipe(rows, tiny_folder, ratings=[{"path": str(tmp_path / "nothing.jsonl")}]))
    with pytest.raises(DataError, match=r"nothing: no usable row is left.*no-rating"):
        train(recipe, tmp_path / "run", reporter=QUIET)


def test_an_unknown_reference_source_is_named(run: Run, rows: Path, tiny_folder: Path, tmp_path: Path):
    with pytest.raises(RecipeError, match="names 'nowhere'"):
        again(run, rows, tiny_folder, tmp_path / "other", debias={"reference": ["nowhere"]})
