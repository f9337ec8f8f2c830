"""Rows that the chat template refuses: counted before features are computed, in every command; agents' rows trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trl
from small_run import Armorm, write_lines, write_recipe, write_rows

from armorm.errors import DataError
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.run.rows import read_rows, survey_rows
from armorm.run.train import train

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Lyon"}}}


def amended(file: Path, change) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    write_lines(file, [change(i, row) for i, row in enumerate(rows)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The small run's rows; the first of each file has a system message."""
    write_rows(tmp_path)
    for file in tmp_path.glob("*.jsonl"):
        amended(file, lambda i, row: {**row, "system": "Be brief."} if i < 2 else row)
    return tmp_path


def recipe_of(folder: Path, backbone: Path, template: str, **rendering):
    backbone_facts = {"chat_template": str(TEMPLATES / f"{template}.jinja"), "rendering": rendering}
    return write_recipe(folder, backbone, backbone=backbone_facts)


def quiet() -> Reporter:
    return Reporter(quiet=True)


def test_a_training_goes_through_and_counts_what_the_template_refuses(folder: Path, tiny_folder: Path, tmp_path: Path):
    run = train(load_recipe(recipe_of(folder, tiny_folder, "gemma")), tmp_path / "run", reporter=quiet())
    drops = {source.name: source.drops.get("template-refuses", 0) for source in run.results.data.sources}
    assert drops == {"ratings-judge": 2, "ratings-panel": 2, "pairs": 2, "small-bench": 2}
    assert any("template-refuses: the chat template refuses this conversation" in fault for fault in run.results.faults)


def test_what_a_dry_run_says_is_what_the_training_reads(folder: Path, tiny_folder: Path, armorm: Armorm):
    from armorm.run.extraction import LazyBackbone

    path = recipe_of(folder, tiny_folder, "gemma")
    recipe = load_recipe(path)
    renderer = LazyBackbone(recipe.backbone, [], print).renderer
    read = read_rows(recipe, recipe.load_objectives(), renderer=renderer)
    facts, examples = survey_rows(recipe, recipe.load_objectives(), renderer=renderer)
    code, out, _ = armorm("train", path, "--dry-run", "--json")
    said = json.loads(out)
    assert code == 0
    assert {one["source"]: one["left out"].get("template-refuses") for one in said["rows"]} == {f.name: 2 for f in facts}
    assert said["faults"] == examples
    for kept, seen in zip(read.facts, facts, strict=True):
        assert (kept.name, kept.total, kept.notes) == (seen.name, seen.total, seen.notes)
        assert {**kept.drops, "prompt-in-benchmark": 0} == {**seen.drops, "prompt-in-benchmark": 0}


def test_a_recipe_may_fail_on_a_refused_row_instead(folder: Path, tiny_folder: Path):
    from armorm.run.extraction import LazyBackbone

    recipe = load_recipe(recipe_of(folder, tiny_folder, "gemma")).model_copy(update={"on_fault": "fail"})
    amended(folder / "ratings-judge.jsonl", lambda _i, row: {**row, "judge-quality": "5"})
    with pytest.raises(DataError, match="2 rows can't be rendered") as error:
        read_rows(recipe, recipe.load_objectives(), renderer=LazyBackbone(recipe.backbone, [], print).renderer)
    assert "template-refuses" in str(error.value)


def test_merged_system_messages_are_refused_by_none(folder: Path, tiny_folder: Path, tmp_path: Path):
    run = train(load_recipe(recipe_of(folder, tiny_folder, "gemma", system="merged")), tmp_path / "run", reporter=quiet())
    assert not [s.name for s in run.results.data.sources if "template-refuses" in s.drops]
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["rendering"] == {"answer": "last-turn", "system": "merged", "today": "2024-07-26"}


@pytest.mark.parametrize("command", ["score", "best-of", "bench", "audit"])
def test_every_command_names_and_counts_the_refusal(command, folder: Path, tiny_folder: Path, tmp_path: Path, armorm: Armorm):
    out = tmp_path / "run"
    train(load_recipe(recipe_of(folder, tiny_folder, "gemma")), out, reporter=quiet())
    model, file = out / "model", folder / "bench.jsonl"
    words = {
        "score": ("score", model, file),
        "best-of": ("best-of", model, file),
        "bench": ("bench", model, "--suite", file, "--out", tmp_path / "bench", "--json"),
        "audit": ("audit", model, file, "--out", tmp_path / "audit", "--json"),
    }
    code, said, _ = armorm(*words[command])
    assert code == 0
    if command in ("score", "best-of"):
        rows = [json.loads(line) for line in said.splitlines()]
        refused = [row for row in rows if "template-refuses" in row.get("error", "")]
        assert (len(rows), len(refused)) == (24, 2)
    else:
        assert any("template-refuses" in reason for reason in json.loads(said)["left_out"])


def test_agents_rows_are_trained_on_and_scored(tiny_folder: Path, tmp_path: Path, armorm: Armorm):
    """Answers that differ in a call alone; trajectories of several turns."""
    write_rows(tmp_path)

    def called(city: str) -> list[dict]:
        call = {**CALL, "function": {"name": "weather", "arguments": {"city": city}}}
        return [{"role": "assistant", "content": "", "tool_calls": [call]}]

    def change(i: int, row: dict) -> dict:
        if i % 3 == 0:
            return {**row, "chosen": called("Lyon"), "rejected": called("Paris")}
        if i % 3 == 1:
            talk = [*called("Lyon"), {"role": "tool", "content": "22 C", "name": "weather"}]
            return {**row, "chosen": [*talk, {"role": "assistant", "content": "It is 22."}], "rejected": row["rejected"]}
        return row

    for name in ("pairs", "bench"):
        amended(tmp_path / f"{name}.jsonl", change)
    recipe = recipe_of(tmp_path, tiny_folder, "qwen2_5", answer="trajectory")
    run = train(load_recipe(recipe), tmp_path / "run", reporter=quiet())
    pairs = next(s for s in run.results.data.sources if s.name == "pairs")
    assert (pairs.kept, dict(pairs.drops)) == (78, {"prompt-in-benchmark": 2})
    code, said, _ = armorm("score", tmp_path / "run" / "model", tmp_path / "pairs.jsonl")
    scored = [json.loads(line) for line in said.splitlines()]
    assert code == 0
    assert all("error" not in row for row in scored)
    assert all(row["scores"][0] != row["scores"][1] for row in scored[::3])
    last = load_recipe(recipe_of(tmp_path, tiny_folder, "qwen2_5"))
    left = {f.name: f.drops for f in survey_rows(last, last.load_objectives())[0]}
    assert left["pairs"]["different-contexts"] == 27
