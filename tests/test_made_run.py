"""A whole run with made ratings and contrast pairs, on a tiny random decoder: what they teach, what keeps them apart, keys."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_world import CONTRAST, KINDS, made_recipe, prompt, write_world
from small_run import read_lines

from armorm import RewardModel
from armorm.data.made.changes import TEXTS
from armorm.data.splits import Split
from armorm.data.starter import build
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.run import extraction
from armorm.run.planted import _gate_rows
from armorm.run.train import Run, Training, train

QUIET = Reporter(quiet=True)
AFTER_THE_GATE = ("gate", "preference", "model", "bench", "report")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made-run")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def made_run(world: Path, tiny_folder: Path) -> Run:
    return train(load_recipe(made_recipe(world, tiny_folder)), world / "run", reporter=QUIET)


@pytest.fixture(scope="module")
def training(made_run: Run, world: Path, tiny_folder: Path) -> Training:
    """The finished run, in memory."""
    found = Training(load_recipe(made_recipe(world, tiny_folder)), made_run.folder, made_run.folder / "features", QUIET)
    assert found.run().computed == ()
    return found


def again(run: Run, world: Path, backbone: Path, out: Path, **changes: Any) -> Run:
    shutil.copytree(run.folder, out)
    return train(load_recipe(made_recipe(world, backbone, **changes)), out, features=run.folder / "features", reporter=QUIET)


def test_the_report_has_what_was_made_as_it_has_the_rest(made_run: Run):
    results = made_run.results
    sources = {(s.name, s.kind): s for s in results.data.sources}
    assert {(f"made-{kind}", "ratings") for kind in KINDS} <= set(sources)
    assert ("contrast-compliance", "pairs") in sources
    for source in sources.values():
        assert source.rows == source.kept + sum(source.drops.values())
    objectives = {o.name: o for o in results.data.objectives}
    assert list(objectives) == ["chat-quality", "duty-is-safe", *KINDS]
    assert {objectives[kind].rater for kind in KINDS} == {"by construction"}
    assert all(objectives[kind].mean == 0.5 for kind in KINDS)
    probe = {o.name: o for o in results.probe.objectives}
    assert all(probe[kind].n_train > 20 and probe[kind].n_test == 0 for kind in KINDS)
    assert probe["chat-quality"].n_test > 0
    assert "made-relevance" in results.gate.by_source
    page = made_run.report.read_text(encoding="utf-8")
    assert "made-coherence" in page
    assert "by construction" in page


def test_held_out_pairs_are_natural(training: Training):
    held_out = training.suites["held-out pairs"].pairs
    assert len(held_out) > 5
    assert set(held_out.sources) == {"chat-pairs"}
    made = [s for s, source in zip(training.pairs.sides, training.pairs.sources, strict=True) if source != "chat-pairs"]
    assert set(made) == {Split.TRAIN, Split.VALIDATION}


def test_every_made_pair_knows_its_origin(training: Training):
    pairs = training.pairs
    assert set(zip(pairs.sources, pairs.origins, strict=True)) >= {
        ("chat-pairs", "chat-pairs"),
        ("made-relevance", "chat-ratings"),
        ("made-relevance", "chat-pairs"),
        ("contrast-compliance", "chat-pairs"),
    }
    without = pairs.take(np.array([origin != "chat-pairs" for origin in pairs.origins]))
    assert set(without.origins) == {"chat-ratings"}
    assert "contrast-compliance" not in without.sources
    assert set(pairs.natural.sources) == {"chat-pairs"}
    assert len(pairs.natural) == sum(source == "chat-pairs" for source in pairs.sources)
    assert pairs.natural.natural is not pairs
    assert without.take(np.zeros(len(without), np.bool_)).natural.origins == []


def test_debiasing_looks_at_natural_answers_alone(made_run: Run, training: Training):
    facts = training.debias.facts["reference"]
    known = training.pairs.natural
    assert facts["sources"] == ["chat-pairs"]
    assert facts["n"] == 2 * int(known.at(Split.TRAIN, Split.VALIDATION).sum())


def test_a_changed_answer_has_a_lower_reward(made_run: Run, world: Path):
    """Effect: what was made is seen, on the prompts that it was made of."""
    model = RewardModel.from_pretrained(made_run.folder / "model")
    pairs = read_lines(world / "chat-pairs.jsonl")[:30]
    whole = [model.score(_said(row["prompt"], row["chosen"])) for row in pairs]
    refused = [model.score(_said(row["prompt"], TEXTS["refusals"][i % 15])) for i, row in enumerate(pairs)]
    lower = [a.rewards["compliance"] > b.rewards["compliance"] for a, b in zip(whole, refused, strict=True)]
    assert np.mean(lower) > 0.9
    assert whole[0].std is not None


def _said(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_another_share_changes_the_gate_alone(
    made_run: Run, world: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(extraction, "store_answers", _only_found(extraction.store_answers))
    natural = {"path": str(world / "chat-pairs.jsonl")}
    pairs = [natural, CONTRAST[0] | {"share": 0.6}, CONTRAST[1]]
    other = again(made_run, world, tiny_folder, tmp_path / "other", pairs=pairs)
    assert other.computed == AFTER_THE_GATE
    assert other.results.probe.to_json() == made_run.results.probe.to_json()
    weights = [r.results.gate.by_source["chat-pairs"] for r in (made_run, other)]
    assert weights[0] != weights[1]


def _only_found(real: Any) -> Any:
    def store(folder: Path, name: str, *more: Any, **options: Any) -> Any:
        before = {at.name for at in folder.iterdir()}
        stored = real(folder, name, *more, **options)
        assert stored.folder.name in before, f"{name} was extracted again"
        return stored

    return store


def test_another_cap_of_pairs_keeps_the_probe(made_run: Run, world: Path, tiny_folder: Path, tmp_path: Path):
    natural = {"path": str(world / "chat-pairs.jsonl")}
    other = again(made_run, world, tiny_folder, tmp_path / "other", pairs=[natural, CONTRAST[0] | {"cap": 10}, CONTRAST[1]])
    assert other.computed == ("debias", *AFTER_THE_GATE)
    kept = {s.name: s.kept for s in other.results.data.sources if s.kind == "pairs"}
    assert kept["made-relevance"] == 10


def test_the_changed_answer_is_computed_once(training: Training):
    """Pairs whose cap is within the ratings' find both answers there, but for what is cut to fit, which is never copied."""
    for kind in KINDS[1:4]:
        rated, preferred = training.stores.ratings[f"made-{kind}"], training.stores.pairs[f"made-{kind}"]
        assert rated.manifest["tokens"] > 0
        assert (preferred.manifest["tokens"] == 0) == (preferred.manifest["truncated"] == 0), kind
    assert training.stores.pairs["made-completeness"].manifest["tokens"] == 0


def test_planted_weights_are_those_of_the_objectives_before_what_is_made(training: Training):
    planted = {"chat": np.array([0.3, 0.7])}
    domains = dict.fromkeys(training.pairs.groups, "chat")
    truth = replace(build(0).truth, weights=planted, domain_of=domains, qualities={})
    (row,) = _gate_rows(truth, training.debias.value, training.gates.value.debiased, training.pairs)
    assert 0 < row["value"] <= 1


def test_what_nobody_names_changes_nothing(world: Path, tiny_folder: Path, made_run: Run, tmp_path: Path):
    """Without made rows a run's stages have the keys that they always had."""
    natural = {
        "ratings": [{"path": str(world / f"{name}-ratings.jsonl")} for name in ("chat", "duty")],
        "pairs": [{"path": str(world / "chat-pairs.jsonl")}],
        "harmless": [],
    }
    recipe = load_recipe(made_recipe(world, tiny_folder, **natural))
    plain = Training(recipe, tmp_path / "plain", made_run.folder / "features", QUIET)
    plain.run()
    assert recipe.pair_shares == []
    assert plain.pairs.natural is plain.pairs
    assert plain.pairs.origins == plain.pairs.sources
    assert prompt(0) in "".join(m["content"] for context in plain.pairs.columns.contexts() for m in context)
