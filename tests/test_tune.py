"""`armorm tune` in one piece: which checkpoints it goes on from, when it finds a finished model, what damage does."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import TUNING, Armorm, read_lines, write_lines, write_recipe, write_rows

from armorm.disk import write_sealed
from armorm.errors import CheckpointError, DataError, FitError
from armorm.owner import owning
from armorm.progress import Reporter
from armorm.recipe import Recipe, load_recipe
from armorm.run.rows import read_rows
from armorm.run.tune import _Work, tune
from armorm.sums import faults_of, read_sums, save_sums, write_sums
from armorm.tuning import loop
from armorm.tuning.checkpoints import FACTS, FORMAT, claim, clear, last_whole, seal
from armorm.tuning_settings import TrainingObjective

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"
QUIET = Reporter(quiet=True)
Row = dict[str, Any]


class Killed(BaseException):
    """What happened to a training."""


def words(recipe: Path, out: Path) -> tuple[object, ...]:
    return ("tune", recipe, "regression", "--out", out, "--quiet", "--json")


def weights(out: Path) -> bytes:
    return (out / "tuned/regression/model/model.safetensors").read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def recipe(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that trains the decoder for a few steps, in a folder with its rows."""
    folder = tmp_path_factory.mktemp("tune")
    write_rows(folder)
    return write_recipe(folder, tiny_folder, tuning=TUNING)


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it leaves when nothing disturbs it."""
    out = tmp_path_factory.mktemp("whole")
    tune(load_recipe(recipe), "regression", out / "tuned/regression", reporter=QUIET)
    return out


@pytest.fixture(scope="module")
def killed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is left of it when it is killed behind its seventh step: the checkpoints of steps 4 and 6."""
    out = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patched:
        stop_at(7, patched)
        with pytest.raises(Killed):
            tune(load_recipe(recipe), "regression", out / "tuned/regression", reporter=QUIET)
    assert {at.name for at in checkpoints(out).iterdir()} == {"key", "checkpoint-4", "checkpoint-6"}
    return out


@pytest.fixture
def stopped(killed: Path, tmp_path: Path) -> Path:
    """A copy of that."""
    return Path(shutil.copytree(killed, tmp_path / "run"))


def stop_at(step: int, patched: pytest.MonkeyPatch) -> None:
    real = loop._Watch.on_log

    def stops(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        real(self, args, state, control, **more)
        if state.global_step == step:
            raise Killed

    patched.setattr(loop._Watch, "on_log", stops)


def checkpoints(out: Path) -> Path:
    return out / "tuned/regression.checkpoints"


def first_step(recipe: Path, out: Path, patched: pytest.MonkeyPatch, armorm: Armorm) -> int:
    """Behind which step the training goes on; it is run to its end."""
    went: list[str | None] = []
    train = loop.transformers.Trainer.train

    def told(self: Any, resume_from_checkpoint: str | None = None) -> Any:
        went.append(resume_from_checkpoint)
        return train(self, resume_from_checkpoint=resume_from_checkpoint)

    patched.setattr(loop.transformers.Trainer, "train", told)
    code, _, err = armorm(*words(recipe, out))
    assert code == 0, err
    assert not checkpoints(out).exists()
    return int(went[0].rpartition("-")[2]) if went[0] else 0


# -- whose checkpoints --------------------------------------------------------------------------------------------------------


def test_a_training_that_is_refused_touches_nothing_of_the_one_that_runs(recipe, whole, stopped, tmp_path, armorm, monkeypatch):
    """Other settings, the same folder: one process holds it, the other is told so, and the first goes on as if alone."""
    text = recipe.read_text(encoding="utf-8").replace("learning_rate: 0.001", "learning_rate: 0.01")
    other = tmp_path / "other.yaml"
    other.write_text(text, encoding="utf-8")
    before = contents(checkpoints(stopped))
    with owning(stopped / "tuned/regression"):
        code, _, err = armorm(*words(other, stopped))
    assert code == 2
    assert "is being written by process" in err
    assert contents(checkpoints(stopped)) == before
    assert first_step(recipe, stopped, monkeypatch, armorm) == 6
    assert weights(stopped) == weights(whole)


def test_checkpoints_of_another_training_are_not_gone_on_from(killed):
    folder = checkpoints(killed)
    key = (folder / "key").read_text(encoding="utf-8")
    assert last_whole(folder, key) == folder / "checkpoint-6"
    assert last_whole(folder, OTHER) is None


def test_a_training_with_other_settings_begins_anew(recipe, stopped, tmp_path, armorm, monkeypatch):
    other = tmp_path / "other.yaml"
    other.write_text(recipe.read_text(encoding="utf-8").replace("learning_rate: 0.001", "learning_rate: 0.01"), encoding="utf-8")
    assert first_step(other, stopped, monkeypatch, armorm) == 0


def test_a_claim_empties_another_training_s_folder_and_spares_its_own_and_a_stranger_s(tmp_path):
    folder = tmp_path / "x.checkpoints"
    claim(folder, KEY)
    (folder / "checkpoint-2").mkdir()
    claim(folder, KEY)
    assert (folder / "checkpoint-2").is_dir()
    claim(folder, OTHER)
    assert contents(folder) == {"key": OTHER.encode()}
    (folder / "key").unlink()
    (folder / "key.1.2.part").mkdir()  # a process that was killed as it wrote the key
    claim(folder, KEY)
    (folder / "key").unlink()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="move it away"):
        claim(folder, KEY)
    clear(folder, KEY)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(DataError, match="move it away"):
        claim(folder / "notes.txt", KEY)


def test_what_a_kill_left_beside_a_finished_training_goes_unless_it_is_another_s(recipe, whole, tmp_path, armorm):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    key = json.loads((out / "tuned/regression/stage.json").read_text())["key"]
    (out / "tuned/.regression.lock").touch()
    for owner in (key, OTHER):
        claim(checkpoints(out), owner)
        (checkpoints(out) / "checkpoint-8").mkdir()
        assert armorm(*words(recipe, out))[0] == 0
        assert checkpoints(out).exists() == (owner == OTHER)
        assert not (out / "tuned/.regression.lock").exists()
    assert weights(out) == weights(whole)


def test_a_finished_folder_holds_no_pickle(whole):
    found = {p.suffix for p in (whole / "tuned").rglob("*") if p.is_file() and p.name != "SHA256SUMS"}
    assert found <= {".json", ".safetensors", ".jinja", ".svg", ".md"}


# -- several processes --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_process_of_a_launch_ends_when_the_first_is_refused(recipe, tmp_path):
    """Without a launcher that would end the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "armorm", *map(str, words(recipe, tmp_path))]

    def launched(rank: int) -> subprocess.Popen[str]:
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env={**os.environ, **common, **own}, stderr=subprocess.PIPE, text=True)

    with owning(tmp_path / "tuned/regression"):
        both = [launched(rank) for rank in (0, 1)]
        said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [2, 2], said
    assert "is being written by process" in said[0]
    assert "the first process of this launch" in said[1]
    assert not checkpoints(tmp_path).exists()


def sealed_by_two(at: Path) -> Path:
    """A checkpoint that two processes wrote, each its part."""
    at.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "rng_state_0.pth", "rng_state_1.pth"):
        (at / name).write_bytes(name.encode())
    (at / "sharded").mkdir()
    (at / "sharded" / "part.bin").write_bytes(b"part")
    for process in (1, 0):
        seal(at, KEY, process=process, processes=2)
    return at


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def test_a_checkpoint_of_several_processes_counts_when_each_has_sealed_its_part(tmp_path):
    at = sealed_by_two(tmp_path / "checkpoint-3")
    assert last_whole(tmp_path, KEY) == at
    assert last_whole(tmp_path, OTHER) is None


@pytest.mark.parametrize("harm", [cut, Path.unlink], ids=["cut", "gone"])
@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.safetensors",
        "rng_state_0.pth",
        "rng_state_1.pth",
        "rng_state_1.json",
        "sharded/part.bin",
        "checkpoint.json",
        "SHA256SUMS",
    ],
)
def test_a_damaged_part_of_any_process_spoils_a_checkpoint(tmp_path, name: str, harm: Callable[[Path], None]):
    at = sealed_by_two(tmp_path / "checkpoint-3")
    older = sealed_by_two(tmp_path / "checkpoint-2")
    harm(at / name)
    assert last_whole(tmp_path, KEY) == older


def test_a_state_that_another_training_sealed_spoils_a_checkpoint(tmp_path):
    at = sealed_by_two(tmp_path / "checkpoint-3")
    seal(at, OTHER, process=1, processes=2)
    assert last_whole(tmp_path, KEY) is None


# -- damaged checkpoints ------------------------------------------------------------------------------------------------------


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink], ids=["cut", "flipped", "gone"])
def test_a_damaged_random_state_sends_a_training_back_to_the_older_checkpoint(
    recipe, whole, stopped, armorm, monkeypatch, harm: Callable[[Path], None]
):
    harm(checkpoints(stopped) / "checkpoint-6" / "rng_state.pth")
    assert first_step(recipe, stopped, monkeypatch, armorm) == 4
    assert weights(stopped) == weights(whole)


def test_without_any_whole_random_state_a_training_begins_anew(recipe, whole, stopped, armorm, monkeypatch):
    for file in checkpoints(stopped).rglob("rng_state.pth"):
        file.unlink()
    assert first_step(recipe, stopped, monkeypatch, armorm) == 0
    assert weights(stopped) == weights(whole)


@pytest.mark.parametrize("length", [{"steps": 2}, {"steps": None, "epochs": 0.1}], ids=["steps", "epochs"])
@pytest.mark.parametrize("objective", ["bradley-terry", "regression"])
def test_a_training_that_is_killed_behind_its_last_step_takes_none_more(
    tiny_folder, tmp_path, objective: TrainingObjective, length: Row, monkeypatch
):
    write_rows(tmp_path)
    recipe = load_recipe(write_recipe(tmp_path, tiny_folder, tuning=TUNING | {"save_every": 1} | length))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tune(recipe, objective, whole, reporter=QUIET)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_trained", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            tune(recipe, objective, broken, reporter=QUIET)
    tune(recipe, objective, broken, reporter=QUIET)
    one, other = (json.loads((at / "training.json").read_text(encoding="utf-8")) for at in (whole, broken))
    assert 2 <= one["steps"] == other["steps"] == len(other["curve"])
    assert [{**step, "seconds": 0} for step in one["curve"]] == [{**step, "seconds": 0} for step in other["curve"]]
    assert (whole / "model/model.safetensors").read_bytes() == (broken / "model/model.safetensors").read_bytes()


def test_a_checkpoint_that_is_written_again_over_a_damaged_one_counts(recipe, stopped):
    flip(checkpoints(stopped) / "checkpoint-6" / "rng_state.pth")
    with pytest.MonkeyPatch.context() as patched:
        stop_at(7, patched)
        with pytest.raises(Killed):
            tune(load_recipe(recipe), "regression", stopped / "tuned/regression", reporter=QUIET)
    last = checkpoints(stopped) / "checkpoint-6"
    assert not list(faults_of(last))
    assert last_whole(last.parent, (last.parent / "key").read_text()) == last


def test_a_checkpoint_that_lists_no_random_state_does_not_count(killed, tmp_path):
    """As older versions wrote them."""
    folder = Path(shutil.copytree(checkpoints(killed), tmp_path / "old"))
    key = (folder / "key").read_text()
    for at in folder.glob("checkpoint-*"):
        write_sums(at, [p.name for p in at.iterdir() if p.is_file() and p.name not in ("rng_state.pth", "SHA256SUMS")])
    assert last_whole(folder, key) is None


@pytest.mark.parametrize("processes", [0, -1, 10**12])
def test_a_checkpoint_of_an_odd_number_of_processes_does_not_count(killed, tmp_path, processes: int):
    folder = Path(shutil.copytree(checkpoints(killed), tmp_path / "odd"))
    key = (folder / "key").read_text()
    for at in folder.glob("checkpoint-*"):
        write_sealed(at / FACTS, {"format": FORMAT, "key": key, "processes": processes})
        write_sums(at, [p.name for p in at.iterdir() if p.is_file() and p.name != "SHA256SUMS"])
    assert last_whole(folder, key) is None


def test_a_checkpoint_that_cannot_be_gone_on_from_is_named_with_what_to_do(recipe, whole, stopped, armorm, monkeypatch):
    """Whole by its digests, and yet no optimiser's state that torch reads: once it is removed, the older one serves."""
    last = checkpoints(stopped) / "checkpoint-6"
    cut(last / "optimizer.pt")
    seal(last, (last.parent / "key").read_text(), process=0, processes=1)
    with pytest.raises(CheckpointError, match=r"checkpoint-6: the training can't go on from here \(.+\): remove this folder"):
        tune(load_recipe(recipe), "regression", stopped / "tuned/regression", reporter=QUIET)
    code, _, err = armorm(*words(recipe, stopped))
    assert code == 2
    assert "fault of armorm's own" not in err
    shutil.rmtree(last)
    assert first_step(recipe, stopped, monkeypatch, armorm) == 4
    assert weights(stopped) == weights(whole)


@pytest.mark.parametrize("error", [ValueError("odd"), FitError("no number"), torch.cuda.OutOfMemoryError("full")])
def test_what_goes_wrong_later_is_not_the_checkpoint_s_fault(recipe, stopped, monkeypatch, error: Exception):
    def fails(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(loop._Watch, "on_log", fails)
    with pytest.raises(type(error), match=str(error)):
        tune(load_recipe(recipe), "regression", stopped / "tuned/regression", reporter=QUIET)


# -- what is found as before --------------------------------------------------------------------------------------------------

CHANGES: Mapping[str, tuple[str, Callable[[Row], Row], set[str]]] = {
    "the other answer is preferred": (
        "pairs",
        lambda r: {**r, "chosen": r["rejected"], "rejected": r["chosen"]},
        {"bradley-terry", "pairwise"},
    ),
    "another answer": ("pairs", lambda r: {**r, "rejected": r["rejected"] + " "}, {"bradley-terry", "pairwise"}),
    "another rating": ("ratings-judge", lambda r: {**r, "judge-quality": "3"}, {"regression"}),
    "another rated answer": ("ratings-judge", lambda r: {**r, "response": "return x"}, {"regression"}),
    "no change": ("pairs", lambda r: r, set()),
    "a column that nobody reads": ("pairs", lambda r: {**r, "note": "x"}, set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_training_s_key_holds_all_that_is_learnt_from_its_rows(recipe, tmp_path, change: str):
    file, changed, expected = CHANGES[change]
    folder = Path(shutil.copytree(recipe.parent, tmp_path / "rows"))
    own = folder / "recipe.yaml"
    own.write_text(re.sub(re.escape(str(recipe.parent)), str(folder), recipe.read_text(encoding="utf-8")), encoding="utf-8")
    before = keys(load_recipe(own))
    rows = read_lines(folder / f"{file}.jsonl")
    write_lines(folder / f"{file}.jsonl", [changed(row) if i == 7 else row for i, row in enumerate(rows)])
    after = keys(load_recipe(own))
    assert {objective for objective in before if before[objective] != after[objective]} == expected


def keys(recipe: Recipe) -> dict[TrainingObjective, str]:
    objectives = recipe.load_objectives()
    rows = read_rows(recipe, objectives, QUIET)
    of: tuple[TrainingObjective, ...] = ("bradley-terry", "pairwise", "regression")
    return {objective: _Work(recipe, objective, objectives, rows, QUIET).inputs["rows"] for objective in of}


@pytest.mark.parametrize("listed", [True, False])
def test_a_finished_training_is_found_again_and_runs_again_when_ratings_changed(recipe, whole, tmp_path, listed: bool):
    folder = Path(shutil.copytree(recipe.parent, tmp_path / "rows"))
    text = recipe.read_text(encoding="utf-8").replace(str(recipe.parent), str(folder))
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    place = out / "tuned/regression"
    assert not tune(load_recipe(folder / "recipe.yaml"), "regression", place, reporter=QUIET).fresh
    (place / "model" / "notes.txt").write_text("mine")
    if not listed:  # as earlier versions left it
        save_sums(place, {name: digest for name, digest in read_sums(place).items() if name != "model/SHA256SUMS"})
    rows = read_lines(folder / "ratings-panel.jsonl")
    write_lines(folder / "ratings-panel.jsonl", [{**row, "panel-quality": 4} for row in rows])
    assert tune(load_recipe(folder / "recipe.yaml"), "regression", place, reporter=QUIET).fresh
    assert weights(out) != weights(whole)
    assert (place / "model" / "notes.txt").read_text() == "mine"
    assert not list(faults_of(place))
    assert "model/SHA256SUMS" in read_sums(place)
