"""Public sets and benchmarks by name, from local copies of their files through a whole run on a tiny decoder."""

from __future__ import annotations

import html
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from small_run import BAD, GOOD, write_lines

from armorm.errors import DataError, RecipeError
from armorm.jobs.bench import run_benchmark
from armorm.progress import Reporter
from armorm.recipe import Suite, load_recipe
from armorm.report.bench_report import render_csv
from armorm.report.run_results import SuiteResults
from armorm.run.train import Run, train
from armorm.scoring.profile import Profile

QUIET = Reporter(quiet=True)
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def answer(draw: random.Random, quality: float) -> str:
    return " ".join(GOOD if draw.random() < quality else BAD for _ in range(draw.randint(2, 10)))


def write_files(folder: Path) -> None:
    """HelpSteer, RewardBench (two subsets) and RM-Bench (two domains) in their public schemas and layouts."""
    draw = random.Random(0)
    helpsteer = []
    for i in range(60):
        for _ in range(3):
            quality = draw.random()
            text = answer(draw, quality)
            ratings = {a: round(4 * quality) for a in ATTRIBUTES[:4]} | {"verbosity": min(4, len(text) // 40)}
            helpsteer.append({"prompt": f"tell me {i}?", "response": text, **ratings})
    (folder / "HelpSteer").mkdir(parents=True)
    write_lines(folder / "HelpSteer" / "train.jsonl", helpsteer)
    bench = [
        {"id": i, "prompt": f"ask {i}", "chosen": answer(draw, 0.9), "rejected": answer(draw, 0.1), "subset": subset}
        | {"chosen_model": "a", "rejected_model": "b"}
        for i, subset in enumerate(["llmbar-natural", "math-prm"] * 8)
    ]
    (folder / "reward-bench").mkdir()
    write_lines(folder / "reward-bench" / "filtered.jsonl", bench)
    styled = [
        {"id": i, "prompt": f"style {i}", "domain": domain}
        | {"chosen": [answer(draw, 0.9) for _ in range(3)], "rejected": [answer(draw, 0.1) for _ in range(3)]}
        for i, domain in enumerate(["chat", "math"] * 5)
    ]
    (folder / "rm-bench").mkdir()
    (folder / "rm-bench" / "total_dataset.json").write_text(json.dumps(styled), encoding="utf-8")


def write_recipe(folder: Path, backbone: Path, **changes: Any) -> Path:
    recipe = {
        "name": "public",
        "backbone": {"model": str(backbone), "dtype": "float32", "device": "cpu", "max_tokens": 256},
        "ratings": [{"source": "helpsteer", "path": str(folder / "HelpSteer")}],
        "pairs": [{"source": "helpsteer", "path": str(folder / "HelpSteer")}],
        "bench": [
            {"benchmark": "rewardbench", "path": str(folder / "reward-bench")},
            {"benchmark": "rm-bench", "path": str(folder / "rm-bench"), "cap": 8},
        ],
        "splits": {"validation": 0.15, "test": 0.2},
        "features": {"response": ["2:mean"], "prompt": "2:last", "store_dtype": "float32"},
        "probe": {"folds": 3},
        "debias": {"nuisances": ["helpsteer-verbosity"]},
        "gate": {"hidden": 16, "hidden_layers": 1, "steps": 40, "batch_size": 32, "evaluate_every": 10},
    } | changes
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("public")
    write_files(folder)
    return folder


@pytest.fixture(scope="module")
def public_run(files: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(load_recipe(write_recipe(files, tiny_folder)), tmp_path_factory.mktemp("runs") / "public", reporter=QUIET)


def suite_facts(run: Run, name: str) -> SuiteResults:
    return next(s for s in run.results.suites if s.name == name)


def test_a_run_on_named_sets_has_their_objectives_and_counts(public_run: Run):
    data = public_run.results.data
    assert [o.name for o in data.objectives] == [f"helpsteer-{a}" for a in ATTRIBUTES]
    kinds = {(s.name, s.kind): s for s in data.sources}
    assert set(kinds) == {("helpsteer", "ratings"), ("helpsteer", "pairs"), ("rewardbench", "bench"), ("rm-bench", "bench")}
    assert kinds["helpsteer", "ratings"].rows == 180
    pairs = kinds["helpsteer", "pairs"]
    assert pairs.rows == 180  # three pairs of each prompt's three answers
    assert pairs.kept + sum(pairs.drops.values()) == 180
    assert pairs.drops["tie"] > 10
    assert kinds["rm-bench", "bench"].drops == {"over-cap": 2}


def test_a_published_benchmark_is_judged_by_its_own_rule(public_run: Run):
    facts = suite_facts(public_run, "rewardbench")
    assert (facts.n, facts.rule) == (16, "pairs")
    method = facts.methods[0]
    assert set(method.sections) == {"Chat Hard", "Reasoning"}
    assert len(method.missing) == 21
    sections = [method.sections[s].value for s in ("Chat Hard", "Reasoning")]
    assert method.overall.value == pytest.approx(sum(sections) / 2)
    assert set(method.figures.aggregates) == {"official", "swapped-xstest"}


def test_items_with_several_answers_are_judged_on_all_of_them(public_run: Run):
    facts = suite_facts(public_run, "rm-bench")
    assert (facts.n, facts.rule) == (8, "style-matrix")
    method = facts.methods[0]
    assert set(method.figures.subsets) == {f"{d}/{p}" for d in ("chat", "math") for p in ("easy", "normal", "hard")}


def test_the_saved_model_benched_anew_gives_the_runs_figures(public_run: Run, files: Path, tmp_path: Path):
    """`armorm bench` on conversations and the run on stored features agree, answer for answer."""
    model = str(public_run.folder / "model")
    for name, folder in (("rewardbench", "reward-bench"), ("rm-bench", "rm-bench")):
        suite = Suite.model_validate({"benchmark": name, "path": str(files / folder), "cap": 8 if name == "rm-bench" else None})
        results = run_benchmark(model, suite, tmp_path / name, reporter=QUIET)
        ours = suite_facts(public_run, name).methods[0].figures
        for subset, figure in results.figures.subsets.items():
            assert figure.value == pytest.approx(ours.subsets[subset].value), subset
        assert results.items == (8 if name == "rm-bench" else 16)
        written = {"SHA256SUMS", "scores.jsonl", "results.json", "results.csv", "report.html"}
        assert {f.name for f in (tmp_path / name).iterdir()} == written
        assert json.loads((tmp_path / name / "results.json").read_text()) | {"folder": results.folder} == results.to_json()
        page = html.unescape((tmp_path / name / "report.html").read_text())
        assert "<script" not in page
        assert "can't be compared with a full run" in page or not results.figures.official.missing
        lines = render_csv(results).splitlines()
        assert lines[0].startswith("level,aggregate,name,value,low,high,halves,n")
        assert len(lines) == 1 + sum(1 + len(a.sections) for a in results.figures.aggregates.values()) + len(
            results.figures.subsets
        )


def test_published_numbers_stand_beside(public_run: Run, files: Path, tmp_path: Path):
    suite = Suite.model_validate({"benchmark": "rewardbench", "path": str(files / "reward-bench")})
    results = run_benchmark(str(public_run.folder / "model"), suite, tmp_path, reporter=QUIET)
    released = next(r for r in results.published if r.subsets)
    assert released.subsets["llmbar-natural"] == pytest.approx(0.93)
    assert "arXiv 2406.12845" in (tmp_path / "report.html").read_text()


def test_a_file_of_pairs_is_a_suite_with_sections_and_ties_as_halves(public_run: Run, tmp_path: Path):
    rows = [
        {"prompt": f"q {i}", "chosen": f"{GOOD} {i}", "rejected": f"{BAD} {i}", "subset": ("hep-a", "talk")[i % 2]}
        for i in range(6)
    ]
    write_lines(tmp_path / "mine.jsonl", [*rows, {"prompt": "q", "chosen": "same", "rejected": "same"}])
    suite = Suite.model_validate(
        {"name": "mine", "source": {"path": str(tmp_path / "mine.jsonl")}, "sections": {"hep-*": "code"}}
    )
    results = run_benchmark(str(public_run.folder / "model"), suite, tmp_path / "out", reporter=QUIET)
    (aggregate,) = results.figures.aggregates.values()
    assert set(aggregate.sections) == {"code", "talk"}
    assert results.rule == "preferences"
    assert results.left_out == {"chosen-equals-rejected": 1}


def test_a_profile_is_weighed_section_by_section(public_run: Run, files: Path, tmp_path: Path):
    suite = Suite.model_validate({"benchmark": "rewardbench", "path": str(files / "reward-bench")})
    model, profile = str(public_run.folder / "model"), Profile(name="one", fix={"helpsteer-coherence": 1.0})
    results = run_benchmark(model, suite, tmp_path, profile=profile, reporter=QUIET)
    rows = {(r.aggregate, r.name): r for r in results.profile.comparison}
    assert {name for aggregate, name in rows if aggregate == "official"} == {"overall", "Chat Hard", "Reasoning"}
    overall, official = rows["official", "overall"], results.figures.official.overall
    assert overall.base.value == official.value
    gap = overall.steered.value - overall.base.value
    assert overall.difference.value == pytest.approx(gap)
    assert (tmp_path / f"scores-{profile.fingerprint}.jsonl").is_file()
    assert "What the profile one costs and brings" in (tmp_path / "report.html").read_text()
    alone = run_benchmark(model, suite, tmp_path, reporter=QUIET)  # the scores without the profile are still there
    assert alone.figures == results.figures
    with pytest.raises(RecipeError, match="no-such"):
        run_benchmark(model, suite, tmp_path, profile=Profile(drop=("no-such",)), reporter=QUIET)


def test_a_one_logit_reward_model_is_benched_too(files: Path, tiny_folder: Path, tmp_path: Path):
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(tiny_folder, num_labels=1)
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path / "rm")
    transformers.AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path / "rm")
    suite = Suite.model_validate({"benchmark": "rewardbench", "path": str(files / "reward-bench")})
    results = run_benchmark(str(tmp_path / "rm"), suite, tmp_path / "out", reporter=QUIET)
    assert (results.items, results.figures.official.overall.unscored) == (16, 0)
    with pytest.raises(DataError, match="no named objectives that a profile could steer"):
        run_benchmark(str(tmp_path / "rm"), suite, tmp_path / "out", profile=Profile(), reporter=QUIET)


def test_a_suite_without_items_is_named(public_run: Run, tmp_path: Path):
    write_lines(tmp_path / "empty.jsonl", [{"prompt": "q"}])
    suite = Suite.model_validate({"name": "empty", "source": {"path": str(tmp_path / "empty.jsonl")}})
    with pytest.raises(DataError, match=r"empty: no usable item \(left out: \{'missing-field': 1\}\)"):
        run_benchmark(str(public_run.folder / "model"), suite, tmp_path / "out", reporter=QUIET)
