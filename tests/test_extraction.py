"""Several processes that fill one store: the same bytes as one, whoever is killed, and nobody waits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_run import Armorm, write_recipe

from armorm.errors import DataError, InUse, MissingExtra, RecipeError
from armorm.features.answers import open_answers
from armorm.features.backbone import load_backbone
from armorm.features.extract import Pooled, Wanted, stream_features
from armorm.features.spec import layers_of
from armorm.features.vllm_engine import VllmBackbone
from armorm.features.workers import Worker
from armorm.owner import owning, owning_folder
from armorm.progress import Reporter
from armorm.recipe import Recipe, load_recipe
from armorm.rendering import Rendered
from armorm.run.extraction import extract
from armorm.run.train import STAGES, train

QUIET = Reporter(quiet=True)
SIZE = 16
PATIENCE = 600.0
"""Seconds that another process may take, on a machine with much else to do."""


@pytest.fixture(scope="module")
def recipe(rows: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The small run's in shards of 16 rows: 5 of pairs, 4 and 4 of ratings, 2 of the benchmark."""
    folder = tmp_path_factory.mktemp("recipe")
    for file in rows.iterdir():
        shutil.copy(file, folder)
    return load_recipe(write_recipe(folder, tiny_folder, features={"shard_rows": SIZE}))


@pytest.fixture(scope="module")
def alone(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores as one process fills them."""
    place = tmp_path_factory.mktemp("alone") / "features"
    found = extract(recipe, place, reporter=QUIET)
    assert found.whole
    assert [(s.name, s.shards, s.present) for s in found.stores] == SHARDS
    return place


SHARDS = [("ratings-judge", 4, 4), ("ratings-panel", 4, 4), ("pairs", 5, 5), ("small-bench", 2, 2)]


def result_bytes(place: Path) -> dict[str, bytes]:
    """Every file of the stores that is part of the result."""
    files = (file for file in place.rglob("*") if file.is_file() and file.name != "timings.jsonl")
    return {str(file.relative_to(place)): file.read_bytes() for file in files}


@pytest.mark.parametrize(
    ("text", "count", "shards"), [("1/1", 3, [0, 1, 2]), ("2/3", 8, [1, 4, 7]), ("3/3", 2, []), ("1/2", 0, [])]
)
def test_a_worker_computes_every_nth_shard(text: str, count: int, shards: list[int]):
    worker = Worker.parse(text)
    assert (str(worker), list(worker.shards(count))) == (text, shards)
    assert worker.rows(10 * count, 10) == 10 * len(shards)


def test_workers_have_every_row_once():
    assert [Worker(i, 4).rows(95, 10) for i in (1, 2, 3, 4)] == [30, 25, 20, 20]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "2", "1/2/3", "a/b", "-1/2", "", "1/²"])
def test_a_worker_that_there_is_not_is_refused(text: str):
    with pytest.raises(DataError, match=r"give I/N with I from 1 to N, such as 2/8"):
        Worker.parse(text)


def test_workers_leave_the_bytes_of_one_process_in_any_order(recipe: Recipe, alone: Path, tmp_path: Path):
    """The last one finds all shards there and finishes the stores; before, they are growing."""
    second, third = (extract(recipe, tmp_path, worker=Worker(i, 3), reporter=QUIET) for i in (2, 3))
    assert [s.present for s in second.stores] == [1, 1, 2, 1]
    assert [s.present for s in third.stores] == [2, 2, 3, 1]
    assert not any(s.whole for s in (*second.stores, *third.stores))
    assert not list(tmp_path.glob("*/manifest.json"))
    assert extract(recipe, tmp_path, worker=Worker(1, 3), reporter=QUIET).whole
    assert result_bytes(tmp_path) == result_bytes(alone)


def test_another_number_of_workers_goes_on_with_what_is_there(recipe: Recipe, alone: Path, tmp_path: Path):
    extract(recipe, tmp_path, worker=Worker(1, 3), reporter=QUIET)
    there = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/shard-*.safetensors")}
    assert len(there) == 2 + 2 + 2 + 1
    for i in (2, 1):
        extract(recipe, tmp_path, worker=Worker(i, 2), reporter=QUIET)
    assert result_bytes(tmp_path) == result_bytes(alone)
    assert {file: file.stat().st_mtime_ns for file in there} == there


def test_training_computes_what_workers_left_and_nothing_else(recipe: Recipe, alone: Path, tmp_path: Path):
    features = tmp_path / "features"
    extract(recipe, features, worker=Worker(2, 2), reporter=QUIET)
    there = {file: file.stat().st_mtime_ns for file in features.glob("*/shard-*")}
    assert len(there) == 2 * (2 + 2 + 2 + 1)
    assert train(recipe, tmp_path, reporter=QUIET).computed == STAGES
    assert result_bytes(features) == result_bytes(alone)
    assert {file: file.stat().st_mtime_ns for file in there} == there


def test_a_shard_that_another_process_computes_is_left_to_it(recipe: Recipe, alone: Path, tmp_path: Path):
    """Nobody waits: a worker does the rest, one process for all says who is at it."""
    (store,) = (file.name for file in alone.glob("pairs-*"))
    (tmp_path / store).mkdir()
    with owning(tmp_path / store / "shard-00002-of-00005.safetensors"):
        found = {s.name: s for s in extract(recipe, tmp_path, worker=Worker(1, 1), reporter=QUIET).stores}
        assert (found["pairs"].present, found["pairs"].whole) == (4, False)
        assert found["small-bench"].whole
        with pytest.raises(InUse, match=rf"shard-00002-of-00005\.safetensors: is being written by process {os.getpid()}"):
            extract(recipe, tmp_path, reporter=QUIET)
    assert extract(recipe, tmp_path, worker=Worker(1, 1), reporter=QUIET).whole
    assert result_bytes(tmp_path) == result_bytes(alone)


def test_a_store_that_another_process_finishes_is_left_to_it(recipe: Recipe, alone: Path, tmp_path: Path):
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    for file in tmp_path.glob("*/manifest.json"):
        file.unlink()
    (store,) = tmp_path.glob("pairs-*")
    with owning_folder(store):
        found = {s.name: s for s in extract(recipe, tmp_path, worker=Worker(1, 2), reporter=QUIET).stores}
    assert (found["pairs"].present, found["pairs"].whole) == (5, False)
    assert found["ratings-panel"].whole
    assert extract(recipe, tmp_path, worker=Worker(2, 2), reporter=QUIET).whole
    assert result_bytes(tmp_path) == result_bytes(alone)


def test_a_damaged_shard_is_computed_again_by_its_worker(recipe: Recipe, alone: Path, tmp_path: Path):
    for i in (1, 2):
        extract(recipe, tmp_path, worker=Worker(i, 3), reporter=QUIET)
    (shard,) = tmp_path.glob("pairs-*/shard-00001-of-00005.safetensors")
    shard.write_bytes(shard.read_bytes()[:-9])
    for i in (2, 3):
        extract(recipe, tmp_path, worker=Worker(i, 3), reporter=QUIET)
    assert result_bytes(tmp_path) == result_bytes(alone)


def test_answers_of_several_sources_are_copied_where_they_are_there_and_computed_where_not(
    recipe: Recipe, rows: Path, tiny_folder: Path, tmp_path: Path
):
    """The pairs' answers are rated too: what a worker copies is what another computes, but for rounding."""
    rated = [
        {"id": f"{row['id']}-{side}", "prompt": row["prompt"], "response": row[side], "judge-quality": 5}
        for row in map(json.loads, (rows / "pairs.jsonl").read_text(encoding="utf-8").splitlines())
        for side in ("rejected", "chosen")
    ]
    for file in rows.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "ratings-judge.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rated), encoding="utf-8")
    shared = load_recipe(write_recipe(tmp_path, tiny_folder, features={"shard_rows": SIZE}))
    one, many = tmp_path / "one", tmp_path / "many"
    extract(shared, one, reporter=QUIET)
    extract(shared, many, worker=Worker(2, 2), reporter=QUIET)
    (growing,) = many.glob("pairs-*")
    tokens = [json.loads(file.read_text(encoding="utf-8"))["tokens"] for file in sorted(growing.glob("shard-*.json"))]
    assert len(tokens) == 2
    assert sum(tokens) > 0, "what the other worker has not computed yet is not known"
    assert extract(shared, many, worker=Worker(1, 2), reporter=QUIET).whole
    (first,), (second,) = (list(place.glob("pairs-*")) for place in (one, many))
    alone, together = open_answers(first), open_answers(second)
    assert alone is not None
    assert together is not None
    assert alone.manifest["tokens"] == 0, "all are known to one process"
    assert together.manifest["tokens"] == sum(tokens), "all are known to the worker that comes last"
    for name in alone.names:
        np.testing.assert_allclose(together.column(name), alone.column(name), atol=1e-5)


# -- the command line -------------------------------------------------------------------------------------------------------


def test_the_command_says_what_is_there(recipe: Recipe, tmp_path: Path, armorm: Armorm):
    place = tmp_path / "recipe.yaml"
    place.write_text(recipe.to_yaml(), encoding="utf-8")
    words = ("extract", place, "--out", tmp_path / "run", "--quiet")
    code, out, _ = armorm(*words, "--shard", "1/2")
    assert code == 0
    assert "shards of other processes are missing" in " ".join(out.split())
    assert "2 of 4" in out
    code, out, _ = armorm(*words, "--json")
    facts = json.loads(out)
    assert (code, facts["shard"], [s["whole"] for s in facts["stores"]]) == (0, None, [True] * 4)
    assert facts["folder"] == str(tmp_path / "run" / "features")
    assert [(s["name"], s["shards"], s["present"]) for s in facts["stores"]] == SHARDS
    code, _, said = armorm(*words, "--shard", "3/2")
    assert code == 2
    assert "give I/N with I from 1 to N" in said


@pytest.mark.slow
def test_three_processes_one_of_them_killed_fill_the_stores_of_one(recipe: Recipe, alone: Path, tmp_path: Path):
    place, run = tmp_path / "recipe.yaml", tmp_path / "run"
    place.write_text(recipe.to_yaml(), encoding="utf-8")

    def start(i: int) -> subprocess.Popen[bytes]:
        words = ["extract", str(place), "--out", str(run), "--shard", f"{i}/3", "--quiet", "--json"]
        return subprocess.Popen([sys.executable, "-m", "armorm", *words], stdout=subprocess.PIPE)

    with start(1) as first, start(2) as killed, start(3) as third:
        until = time.monotonic() + PATIENCE
        while not list(run.glob("features/*/shard-00001-of-*.safetensors")):
            assert killed.poll() is None
            assert time.monotonic() < until
            time.sleep(0.002)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(PATIENCE) == -signal.SIGKILL
        assert [process.wait(PATIENCE) for process in (first, third)] == [0, 0]
    assert not list(run.glob("features/pairs-*/manifest.json")), "its shards are missing"
    with start(2) as again:
        out, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0
    assert all(store["whole"] for store in json.loads(out)["stores"])
    assert result_bytes(run / "features") == result_bytes(alone)
    before = {file: file.stat().st_mtime_ns for file in (run / "features").rglob("*") if file.is_file()}
    assert train(recipe, run, reporter=QUIET).computed == STAGES
    assert {file: file.stat().st_mtime_ns for file in (run / "features").rglob("*") if file.is_file()} == before


class Played(VllmBackbone):
    """vLLM played by this package's own decoder, which reads each conversation alone."""

    ended = 0

    def stream(self, rendered: Sequence[Rendered], wanted: Wanted) -> Iterator[Pooled]:
        how: Any = {"response": wanted.response, "prompt": wanted.prompt, "header": wanted.header}
        yield from stream_features(rendered, self.llm, batch_tokens=1, share=False, **how)

    def close(self) -> None:
        Played.ended += 1


@pytest.fixture
def by_vllm(recipe: Recipe) -> Recipe:
    """The recipe with the other engine."""
    features = recipe.features.model_copy(update={"engine": "vllm"})
    return recipe.model_copy(update={"features": features})


def test_vllms_features_stand_in_stores_of_their_own(
    recipe: Recipe, by_vllm: Recipe, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    started: list[str] = []

    def played(name: str, parts: Any, *, dtype: Any, max_tokens: int, revision: str | None = None) -> Played:
        assert (dtype, max_tokens, revision) == ("float32", 256, None)
        own = load_backbone(name, dtype=dtype, device="cpu")
        started.append(name)
        return Played(name, own.layers, own.width, frozenset(layers_of(parts)), own)

    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    before, Played.ended = {store.name for store in alone.iterdir()}, 0
    monkeypatch.setattr("armorm.run.extraction.load_on_vllm", played)
    found = extract(by_vllm, tmp_path, reporter=QUIET)
    assert found.whole
    assert (started, Played.ended) == ([recipe.backbone.model], 1)
    assert before.isdisjoint(store.folder for store in found.stores)
    for store in found.stores:
        (own,) = alone.glob(f"{store.name}-*")
        other = tmp_path / store.folder
        assert json.loads((other / "manifest.json").read_text(encoding="utf-8"))["backbone"]["engine"] == "vllm"
        for file in own.glob("shard-*.safetensors"):
            ours, theirs = load_file(file), load_file(other / file.name)
            assert set(ours) == set(theirs)
            assert all(np.allclose(theirs[name], ours[name], atol=1e-4, equal_nan=True) for name in ours)
    # Whoever has no vLLM finds them, and keeps what was fitted on them: their own keys say whose they are.
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert extract(by_vllm, tmp_path, reporter=QUIET).whole
    assert recipe.features.to_key() == by_vllm.features.to_key()
    with pytest.raises(MissingExtra, match=r"features\.engine: vllm.*armorm\[vllm\]"):
        extract(by_vllm, tmp_path / "elsewhere", reporter=QUIET)


def test_a_device_is_vllms_own_choice(rows: Path, tiny_folder: Path, tmp_path: Path):
    shutil.copytree(rows, tmp_path, dirs_exist_ok=True)
    engine: Any = {"features": {"engine": "vllm"}}
    with pytest.raises(RecipeError, match=r"backbone\.device: vLLM chooses it \(got 'cpu'\)"):
        load_recipe(write_recipe(tmp_path, tiny_folder, **engine))
    assert load_recipe(write_recipe(tmp_path, tiny_folder, backbone={"device": "auto"}, **engine)).features.engine == "vllm"
