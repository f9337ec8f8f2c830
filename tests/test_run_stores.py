"""A run on its stores: every damaged file is named, memory holds no texts, files are read once, a resumed run is the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import planted_store, write_recipe
from torture.numbers import differing, leftovers, numbers

from armorm.data.rows import BenchmarkItem, PreferencePair, RatedResponse
from armorm.disk import digest_of, write_sealed
from armorm.errors import CheckpointError, InUse
from armorm.features import answers
from armorm.features.answers import open_answers
from armorm.features.columns import Stored
from armorm.features.spec import FeatureSpec
from armorm.fit.method import Fitted
from armorm.fit.parts import load_debias, load_preference
from armorm.objectives import Objective, Objectives
from armorm.progress import Reporter
from armorm.recipe import Recipe, load_recipe
from armorm.rivals.bradley_terry import load_bradley_terry
from armorm.run.context import RunContext
from armorm.run.coverage import uncertainty_stage
from armorm.run.debias_stage import fit_debias_stage
from armorm.run.examples import examples, reference_of
from armorm.run.gate_stage import fit_gate_stage
from armorm.run.methods import fit_bradley_terry_stage
from armorm.run.pairs import SuiteArrays, pair_arrays
from armorm.run.probe_stage import FittedProbe, fit_probe_stage
from armorm.run.stages import find_stage, read_nothing, run_stage
from armorm.run.train import BothGates, Run, Training, train
from armorm.scoring.reference import Reference
from armorm.scoring.uncertainty import Uncertainty

QUIET = Reporter(quiet=True)
STAGES = ("probe", "uncertainty", "debias", "gate", "preference", "model", "bench", "report")
LOGS = {"timings.jsonl"}
"""Not part of a store's result: seconds, one line a shard."""


# -- damage -----------------------------------------------------------------------------------------------------------------


def readers(folder: Path) -> dict[Path, Callable[[], Any]]:
    """Every file of the stores and fitted parts, with what reads it whole on its way to a number."""

    def read_store(home: Path) -> None:
        store = open_answers(home)
        assert store is not None
        for name in (*store.names, "answers", *(["ratings"] if store.manifest["objectives"] else [])):
            store.column(name)
        assert len(store.ids) == len(store.groups) == len(list(store.contexts())) == len(store.items())

    parts: dict[str, Callable[[Path], Any]] = {
        "probe": lambda at: FittedProbe.load(at, 3),
        "debias": load_debias,
        "gate": BothGates.load,
        "preference": load_preference,
        "uncertainty": Uncertainty.load,
        "bench": load_bradley_terry,
        "model/armorm": lambda at: (Uncertainty.load(at), Reference.load(at), load_preference(at)),
    }
    found: dict[Path, Callable[[], Any]] = {}
    for home in (folder / "features").iterdir():
        found |= {f: (lambda home=home: read_store(home)) for f in home.iterdir() if f.name not in LOGS}
    for stage, read in parts.items():
        files = [f for f in (folder / stage).rglob("*") if f.suffix in {".json", ".safetensors"} and f.name != "stage.json"]
        if stage == "model/armorm":  # the rest is transformers' own
            files = [f for f in files if f.stem in {"uncertainty", "reference", "preference"}]
        found |= {f: (lambda at=folder / stage, read=read: read(at)) for f in files}
    return found


def flip(file: Path, bit: int) -> bytes:
    """Flip one bit; what the file was."""
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    file.write_bytes(damaged)
    return whole


def test_a_flipped_bit_in_any_store_or_part_is_named_before_it_reaches_a_number(copied: Path):
    found = readers(copied)
    assert len(found) >= 4 * 6 + 8 + 2 + 16 + 2 + 2 + 2 + 6
    for read in set(found.values()):
        read()  # whole
    stages = [copied / stage / "stage.json" for stage in STAGES]
    draw, files = np.random.default_rng(0), [*found, *stages]
    hit, silent = Counter[str](), []
    for i in range(200):
        file = files[i % len(files)] if i < len(files) else files[int(draw.integers(len(files)))]
        whole = flip(file, int(draw.integers(8 * file.stat().st_size)))
        if file in found:
            with pytest.raises(CheckpointError, match=file.name):
                found[file]()
        elif find_stage(file.parent, json.loads(whole)["key"], read_nothing) is not None:
            silent.append(file)
        file.write_bytes(whole)
        hit[file.suffix] += 1
    assert not silent
    assert sum(hit.values()) == 200
    assert set(hit) == {".json", ".safetensors", ".parquet"}
    for file in stages:
        assert find_stage(file.parent, json.loads(file.read_text())["key"], read_nothing) is not None


def test_a_run_that_needs_a_damaged_shard_stops_and_names_it(copied: Path, rows: Path, tiny_folder: Path):
    recipe = load_recipe(write_recipe(rows, tiny_folder))
    shutil.rmtree(copied / "gate")
    (shard,) = (copied / "features").glob("pairs-*/shard-*.safetensors")
    flip(shard, 8 * (shard.stat().st_size - 1))
    with pytest.raises(CheckpointError, match=rf"{shard}: damaged.*extract again"):
        train(recipe, copied, reporter=QUIET)
    (shard.parent / "manifest.json").unlink()  # what the message says
    assert train(recipe, copied, reporter=QUIET).computed == ("gate",)


ANSWER = ({"role": "assistant", "content": "a"},)
ALIKE = ("shard-00000-of-00002", "shard-00001-of-00002")


def stores_alike(folder: Path) -> tuple[Path, Path]:
    """Two stores of two shards each, all of the same sizes and with the same ids; each feature says which answer it is of."""
    homes, ones = (folder / "a-0123", folder / "b-4567"), np.ones((8, 4))
    for n, home in enumerate(homes):
        contexts = [({"role": "user", "content": f"{n}: {i}"},) for i in range(8)]
        rated = [RatedResponse(f"r{i}", f"g{i}", "r", (*c, *ANSWER), {"quality": float(i)}) for i, c in enumerate(contexts)]
        planted_store(home, rated, (np.arange(8) + 10 * n)[:, None] * ones, ones, np.arange(8), shard_rows=4)
    return homes


def exchange(one: Path, other: Path) -> None:
    kept = one.with_name("kept")
    one.rename(kept)
    other.rename(one)
    kept.rename(other)


def read_all(home: Path) -> list[Any]:
    store = open_answers(home)
    assert store is not None
    return [*(store.column(name) for name in (*store.names, "answers", "ratings")), store.texts(0), store.groups]


@pytest.mark.parametrize("endings", [[".safetensors"], [".json"], [".safetensors", ".json"]], ids=str)
@pytest.mark.parametrize("between", ["shards of one store", "two stores"])
def test_shards_that_were_exchanged_reach_no_number(endings: list[str], between: str, tmp_path: Path):
    home, other = stores_alike(tmp_path)
    first, second = home / ALIKE[0], home / ALIKE[1] if between == "shards of one store" else other / ALIKE[0]
    assert len(read_all(home)) == 9
    for ending in endings:
        exchange(Path(f"{first}{ending}"), Path(f"{second}{ending}"))
    for place in {first.parent, second.parent}:
        store = open_answers(place)
        assert store is not None
        for name in (*store.names, "answers", "ratings"):
            with pytest.raises(CheckpointError, match=r"shard-0000[01]-of-00002\.(json|safetensors): .*extract again"):
                store.column(name)
        with pytest.raises(CheckpointError, match="extract again"):
            store.pieces("response", FeatureSpec.parse("final:last"))
        exchanged = {at.name for at in (first, second) if at.parent == place}
        assert {Path(file).stem for file, _ in answers.store_faults(place)} == exchanged
        (place / "manifest.json").unlink()  # what the message says: what is not whole and in its place is computed anew
        left = [answers.find_shard(place, name, 4) for name in ALIKE]
        assert [facts is None for facts in left] == [name in exchanged for name in ALIKE]


@pytest.mark.parametrize("files", [["texts.parquet"], ["manifest.json"], ["texts.parquet", "manifest.json"], []], ids=str)
def test_files_of_another_store_are_no_stores_own(files: list[str], tmp_path: Path):
    """Those of one name exchanged, at last the whole folders."""
    home, other = stores_alike(tmp_path)
    for name in files:
        exchange(home / name, other / name)
    if not files:
        exchange(home, other)
    for place in (home, other):
        with pytest.raises(CheckpointError, match="extract again"):
            read_all(place)
        assert list(answers.store_faults(place))


@pytest.mark.parametrize("named", [True, False])
def test_a_store_that_does_not_say_where_it_stands_is_read(named: bool, tmp_path: Path):
    """As earlier versions wrote them."""
    home, _ = stores_alike(tmp_path)
    if not named:
        for name in (*ALIKE, "manifest"):
            facts = {k: v for k, v in json.loads((home / f"{name}.json").read_text()).items() if k not in ("sha256", "place")}
            if name == "manifest":
                facts["shards"] = [digest_of(home / f"{shard}.json") for shard in ALIKE]
            write_sealed(home / f"{name}.json", facts)
    assert read_all(home)[0][:, 0].tolist() == list(range(8))
    assert all(answers.find_shard(home, name, 4) for name in ALIKE)


def test_a_stage_whose_file_is_damaged_is_computed_again(copied: Path, run: Run, rows: Path, tiny_folder: Path):
    before = (copied / "debias" / "debias.safetensors").read_bytes()
    flip(copied / "debias" / "stage.json", 999)
    again = train(load_recipe(write_recipe(rows, tiny_folder)), copied, reporter=QUIET)
    assert again.computed == ("debias",)
    assert again.results == run.results
    assert (copied / "debias" / "debias.safetensors").read_bytes() == before


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
@pytest.mark.parametrize(
    "name",
    [
        "probe/without-fold-1/probe.safetensors",
        "debias/debias.json",
        "gate/SHA256SUMS",
        "bench/bradley-terry.safetensors",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/chat_template.jinja",
        "report/results.json",
        "report/report.html",
    ],
)
def test_a_stage_that_lacks_a_file_is_told_of_and_computed_again(
    copied: Path, run: Run, rows: Path, tiny_folder: Path, name: str, harm: str, capsys: pytest.CaptureFixture[str]
):
    file = copied / name
    before = file.read_bytes()
    if harm == "flip":
        flip(file, 4 * len(before))
    elif harm == "cut":
        file.write_bytes(before[: len(before) // 2])
    else:
        file.unlink()
    again = train(load_recipe(write_recipe(rows, tiny_folder)), copied, reporter=Reporter())
    assert again.computed == (file.relative_to(copied).parts[0],)
    assert again.results == run.results or again.computed == ("report",)
    assert name in "".join(capsys.readouterr().err.split()).replace("is missing", "")
    if file.suffix in {".safetensors", ".jinja"}:
        assert file.read_bytes() == before


# -- values are handed on ---------------------------------------------------------------------------------------------------


def plain(results: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in results.items() if k not in {"created", "seconds", "backbone"}}


@pytest.mark.parametrize("first", STAGES[1:-1])
def test_a_resumed_run_gives_the_same_bytes(first: str, copied: Path, run: Run, rows: Path, tiny_folder: Path):
    """Values that are read back equal those that were handed on: all later stages come out the same."""
    lost = STAGES[STAGES.index(first) :]
    for stage in lost:
        shutil.rmtree(copied / stage)
    again = train(load_recipe(write_recipe(rows, tiny_folder)), copied, reporter=QUIET)
    assert again.computed == lost
    assert plain(again.results.to_json()) == plain(run.results.to_json())
    parts = [f.relative_to(run.folder) for s in lost for f in (run.folder / s).rglob("*") if f.suffix == ".safetensors"]
    assert parts or first == "report"
    for part in parts:
        assert (copied / part).read_bytes() == (run.folder / part).read_bytes(), part


def start_second(way: str, recipe: Path, folder: Path) -> str:
    """What another `train` on a folder that is being written says; it must be refused."""
    if way == "process":
        command = [sys.executable, "-m", "armorm", "train", str(recipe), "--out", str(folder), "--quiet"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert ended.returncode == 2, ended
        return ended.stderr
    if way == "link":
        (folder.parent / "link").symlink_to(folder)
        folder = folder.parent / "link"
    told: list[str] = []

    def start() -> None:
        with pytest.raises(InUse) as caught:
            train(load_recipe(recipe), folder, reporter=QUIET)
        told.append(str(caught.value))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(timeout=60)
    return told[0]


@pytest.mark.parametrize(
    ("stage", "way"),
    [
        ("_extract", "thread"),
        ("_fit_gates", "process"),
        ("_save_model", "other recipe"),
        ("_report", "link"),
    ],
)
def test_of_two_runs_in_one_folder_the_second_is_told_of_the_first_and_changes_nothing(
    stage: str, way: str, run: Run, rows: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe, other = write_recipe(rows, tiny_folder), tmp_path / "other.yaml"
    mine = load_recipe(recipe)
    if way == "other recipe":
        other.write_text(recipe.read_text(encoding="utf-8").replace("name: small\n", "seed: 1\nname: other\n"), encoding="utf-8")
    original, begun, told, folder = getattr(Training, stage), list[Training](), list[str](), tmp_path / "run"

    def disturbed(self: Training, *given: Any) -> Any:
        value = original(self, *given)
        begun.append(self)
        if begun == [self]:
            told.append(start_second(way, other if way == "other recipe" else recipe, folder))
        return value

    monkeypatch.setattr(Training, stage, disturbed)
    assert train(mine, folder, reporter=QUIET).computed == STAGES
    assert f"{folder.name if way != 'link' else 'link'}: is being written by process {os.getpid()}" in " ".join(told[0].split())
    assert differing(numbers(run.folder), numbers(folder)) == []
    assert leftovers(folder) == []
    assert train(mine, folder, reporter=QUIET).computed == ()


def test_a_stage_found_is_read_once_and_one_computed_is_not_read(tmp_path: Path):
    calls: list[str] = []

    def compute(at: Path) -> tuple[int, dict[str, Any]]:
        calls.append("computed")
        (at / "value").write_text("7")
        return 7, {"told": (1, 2)}

    def read(at: Path) -> int:
        calls.append("read")
        return int((at / "value").read_text())

    first = run_stage(tmp_path / "stage", {"a": 1}, compute, read)
    again = run_stage(tmp_path / "stage", {"a": 1}, compute, read)
    other = run_stage(tmp_path / "stage", {"a": 2}, compute, read)
    assert calls == ["computed", "read", "computed"]
    assert (first.value, first.facts, first.fresh) == (7, {"told": [1, 2]}, True)
    assert (again.value, again.facts, again.fresh, again.key) == (7, first.facts, False, first.key)
    assert (other.fresh, other.key != first.key) == (True, True)


DIES = """
import os, signal, sys
from pathlib import Path
from armorm.run.stages import run_stage
def compute(at):
    (at / "within").mkdir()
    (at / "within" / "value").write_text("half")
    (at / ".tmpAbC").write_text("a library's")
    os.kill(os.getpid(), signal.SIGKILL)
run_stage(Path(sys.argv[1]), {"a": int(sys.argv[2])}, compute, lambda at: None)
"""


@pytest.mark.parametrize("before", [False, True], ids=["first", "again"])
def test_a_stage_that_is_killed_leaves_nothing_for_long(tmp_path: Path, before: bool):
    def compute(at: Path) -> tuple[None, dict[str, Any]]:
        (at / "within").mkdir()
        (at / "within" / "value").write_text("whole")
        return None, {}

    def contents(folder: Path) -> dict[str, bytes]:
        return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name == "value"}

    folder, other = tmp_path / "run" / "gate", tmp_path / "other" / "gate"
    if before:
        run_stage(folder, {"a": 1}, compute, read_nothing)
    old = contents(folder)
    for _ in range(2):
        died = subprocess.run([sys.executable, "-c", DIES, str(folder), "2"], check=False)
        assert died.returncode == -signal.SIGKILL
        assert len([f for f in folder.parent.iterdir() if f.name.endswith(".part")]) == 1  # that of the last one
        assert contents(folder) == old
    run_stage(folder, {"a": 2}, compute, read_nothing)
    run_stage(other, {"a": 2}, compute, read_nothing)
    assert [f.name for f in folder.parent.iterdir()] == ["gate"]
    assert contents(folder) == contents(other) == {"within/value": b"whole"}
    assert {f.name for f in folder.rglob("*")} == {f.name for f in other.rglob("*")}


def test_a_suite_holds_every_answer_once_and_pairs_hold_each_at_least_once(tmp_path: Path):
    """Each answer's feature is its place in the file, so whatever is read says where it was read."""
    sizes = [(1, 3), (2, 1), (1, 1)]
    items, first = [], np.array([0, 4, 7])
    for i, (chosen, rejected) in enumerate(sizes):
        names = [f"{i}-{j}" for j in range(chosen + rejected)]
        talk = ({"role": "user", "content": f"question {i}"},)
        items.append(BenchmarkItem(f"b{i}", f"g{i}", "b", talk, tuple(names[:chosen]), tuple(names[chosen:]), section="s"))
    features = np.repeat(np.arange(9.0)[:, None], D, axis=1)
    store = planted_store(tmp_path / "b", items, features, np.arange(3.0)[:, None] * np.ones(D), 10 * np.arange(9), shard_rows=2)
    recipe = Recipe.model_validate(
        {"name": "n", "ratings": [{"path": "r"}], "pairs": [{"path": "p"}], "features": {"prompt": "final:last"}}
    )
    suite = SuiteArrays.of_store(RunContext(recipe, OBJECTIVES, QUIET), "b", store)
    chosen, rejected = (side.take(np.arange(len(side))) for side in suite.answers("final:last"))
    assert chosen.response[:, 0].tolist() == [0, 4, 5, 7]
    assert rejected.response[:, 0].tolist() == [1, 2, 3, 6, 8]
    assert (chosen.prompt[:, 0].tolist(), rejected.prompt[:, 0].tolist()) == ([0, 1, 1, 2], [0, 0, 0, 1, 2])
    assert suite.lengths.tolist() == [0, 40, 50, 70, 10, 20, 30, 60, 80]
    assert suite.groups == ["g0", "g1", "g1", "g2", "g0", "g0", "g0", "g1", "g2"]
    by_item = suite.by_item(chosen.response[:, 0], rejected.response[:, 0])
    assert [s.tolist() for s in by_item] == [list(range(a, a + sum(n))) for a, n in zip(first, sizes, strict=True)]
    pairs = suite.pairs
    assert (pairs.winners.tolist(), pairs.losers.tolist()) == ([0, 0, 0, 4, 5, 7], [1, 2, 3, 6, 6, 8])
    assert [pairs.texts(i)[1:] for i in range(6)] == [
        (items[row].chosen[i % len(items[row].chosen)], items[row].rejected[i % len(items[row].rejected)])
        for row, i in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0))
    ]
    assert pairs.texts(4)[0] == items[1].context


# -- what is read, what is in memory ----------------------------------------------------------------------------------------


def test_each_shard_is_opened_once_whatever_the_candidates(
    rows: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Three candidates, pairs in several shards: what is known, all stages, the rival and the suites share one opening."""
    settings = {"response": ["1:mean", "2:mean", "final:last"], "shard_rows": 16}
    recipe = load_recipe(write_recipe(rows, tiny_folder, features=settings))
    opened, real = Counter[str](), answers.tensors_in

    def counting(place: Path) -> dict[str, Stored]:
        opened[f"{place.parent.name}/{place.name}"] += 1
        return real(place)

    monkeypatch.setattr(answers, "tensors_in", counting)
    assert train(recipe, tmp_path / "run", reporter=QUIET).computed == STAGES
    shards = {f"{f.parent.name}/{f.name}" for f in (tmp_path / "run" / "features").glob("*/shard-*.safetensors")}
    assert len([s for s in shards if s.startswith("pairs-")]) == 5
    assert opened == Counter(shards)


D = 8
RATED, PAIRED = 20_000, 4_000
OBJECTIVES = Objectives([Objective(name=name, min=0, max=4) for name in ("quality", "length")])


def fitting_peaks(folder: Path, words: int) -> tuple[dict[str, int], Fitted]:
    """The most memory that each stage held, on stores whose every text has so many words; what was fitted."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(RATED, D)), rng.normal(size=(2 * PAIRED, D))
    ratings = np.clip(2 + x[:, :2] + 0.3 * rng.normal(size=(RATED, 2)), 0, 4)

    def talk(i: int) -> tuple[Any, ...]:
        return ({"role": "user", "content": f"question {i} " + "word " * words},)

    def answer(i: int) -> str:
        return f"answer {i} " + "word " * words

    rated = [
        RatedResponse(
            f"r{i}", f"g{i // 50}", "rated", (*talk(i), {"role": "assistant", "content": answer(i)}), {"quality": q, "length": v}
        )
        for i, (q, v) in enumerate(ratings.tolist())
    ]
    pairs = [PreferencePair(f"p{i}", f"g{i // 50}", "pairs", talk(i), answer(i), answer(-i)) for i in range(PAIRED)]
    recipe = Recipe.model_validate(
        {
            "name": "planted",
            "ratings": [{"path": "r.jsonl"}],
            "pairs": [{"path": "p.jsonl"}],
            "features": {"response": ["final:last"], "prompt": "final:last"},
            "splits": {"validation": 0.1, "test": 0.1},
            "probe": {"folds": 2},
            "debias": {"nuisances": ["length"]},
            "gate": {"hidden": 4, "hidden_layers": 1, "steps": 5, "batch_size": 64, "evaluate_every": 5},
        }
    )
    stores = {"rated": planted_store(folder / "rated", rated, x, x, np.ones(RATED))}
    prompts = rng.normal(size=(PAIRED, D))
    in_pairs = {"pairs": planted_store(folder / "pairs", pairs, z, prompts, np.ones(2 * PAIRED))}
    del rated, pairs, x, z, ratings
    context = RunContext(recipe, OBJECTIVES, QUIET)
    peaks: dict[str, int] = {}

    def held(stage: str, value: Any) -> Any:
        peaks[stage] = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        return value

    tracemalloc.start()
    try:
        arrays = held("pairs", pair_arrays(context, in_pairs))
        probe, _ = held("probe", fit_probe_stage(folder / "probe", context, stores))
        held("uncertainty", uncertainty_stage(folder / "uncertainty", context, probe, stores))
        debias, _ = held("debias", fit_debias_stage(folder / "debias", context, probe, stores, arrays))
        gates, _ = held("gate", fit_gate_stage(folder / "gate", context, probe, debias, arrays))
        fitted = Fitted(probe.probe, probe.feature, debias, gates.gate)
        held("rival", fit_bradley_terry_stage(arrays, [probe.feature]))
        assert len(held("reference", reference_of(fitted, arrays, seed=0)).prompts) == 2000
        assert len(held("examples", examples(fitted, arrays, count=2))) == 2
    finally:
        tracemalloc.stop()
    return peaks, fitted


@pytest.mark.slow
@pytest.mark.usefixtures("run")  # which imports what training imports, outside of what is measured
def test_memory_while_fitting_does_not_grow_with_the_texts(tmp_path: Path):
    """20,000 rated rows and 4,000 pairs: the long texts are 150 MB more than the short ones; a batch is in memory at a time."""
    (short, one), (long, other) = (fitting_peaks(tmp_path / str(words), words) for words in (1, 600))
    np.testing.assert_array_equal(one.probe.weights, other.probe.weights)
    assert (RATED * 2 + PAIRED * 3) * 599 * len("word ") > 150e6
    assert PAIRED * 599 * len("word ") > 10e6  # the contexts alone, which percentiles are read from
    assert len(short) == 8
    for stage, peak in short.items():
        assert long[stage] < peak + 5e6, stage
