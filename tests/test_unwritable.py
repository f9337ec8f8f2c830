"""Disks that are full, read-only or have no such place: one message, nothing half-written, the same files once there is room."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from safetensors import SafetensorError
from small_run import Armorm, read_lines, write_lines, write_recipe
from transformers import PreTrainedTokenizerFast

from armorm.compare.comparing import compare
from armorm.disk import write_text
from armorm.errors import StorageError
from armorm.jobs.score_file import score_file
from armorm.model.reward_model import RewardModel
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.report.compare_page import FILES as COMPARED
from armorm.report.compare_page import write_compare
from armorm.report.compare_results import CompareResults
from armorm.results import read_result
from armorm.run.train import Run
from armorm.run.tune import tune
from armorm.tuning import loop

FULL = OSError(errno.ENOSPC, "No space left on device")
SAFETENSORS = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
TOKENIZERS = Exception("No space left on device (os error 28)")
TORCH = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
TUNING = {"steps": 2, "batch_size": 8, "micro_batch": 8, "learning_rate": 1e-2, "save_every": 1, "evaluate": 0}
DATED = ("stage.json", "SHA256SUMS")
"""They hold the seconds that a stage took."""


def message(err: str) -> str:
    """The one message of a command that failed."""
    assert "Traceback" not in err
    assert err.count("error: ") == 1, err
    assert "fault of armorm's own" not in err
    return " ".join(err.partition("error: ")[2].split())


def passing(folder: Path) -> list[str]:
    """What is left of an attempt to write below a folder."""
    ends = (".part", ".before", ".parts", ".checkpoints")
    return [str(at) for at in folder.rglob("*") if at.name.endswith(ends) or at.name.startswith(".tmp")]


def contents(folder: Path, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Files below a folder by name."""
    files = (at for at in folder.rglob("*") if at.is_file() and at.name not in but)
    return {at.relative_to(folder).as_posix(): at.read_bytes() for at in files}


def fill_libraries(patched: pytest.MonkeyPatch, place: str, error: Exception) -> None:
    """Has the libraries' own writers break off midway in a file whose path ends so, below folders for what passes."""

    def breaks(path: Any) -> None:
        apart = Path(path).parent
        folder = apart.parent if apart.name.startswith(f"{Path(path).name}.") else apart
        if re.sub(r"\.\d+\.\d+\.part\b", "", str(folder / Path(path).name)).endswith(place):
            (apart / ".tmpAbCd12").write_bytes(b"half")
            raise error

    def guarded(real: Callable[..., Any], at: Callable[..., Any]) -> Callable[..., Any]:
        def write(*given: Any, **named: Any) -> Any:
            breaks(at(*given, **named))
            return real(*given, **named)

        return write

    for module in (safetensors.numpy, safetensors.torch):
        real: Any = module.serialize_file
        patched.setattr(module, "serialize_file", guarded(real, lambda _tensors, filename, **_: filename))
    tokenizer = PreTrainedTokenizerFast._save_pretrained
    saved = guarded(tokenizer, lambda _self, save_directory, *_, **__: Path(save_directory) / "tokenizer.json")
    patched.setattr(PreTrainedTokenizerFast, "_save_pretrained", saved)


class _Full:
    """A file on a disk that has room for half of what is written."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def write(self, data: Any) -> int:
        self.stream.write(data[: len(data) // 2])
        self.stream.flush()
        raise FULL


def fill(patched: pytest.MonkeyPatch, name: str) -> None:
    """Has the disk be full when a file of this name is written."""
    real = io.open

    def opened(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        stream = real(file, mode, *given, **named)
        return _Full(stream) if set(mode) & set("wax+") and Path(str(file)).name == name else stream

    patched.setattr(io, "open", opened)


# -- libraries on a full disk ------------------------------------------------------------------------------------------------

STAGES = [
    ("probe", "probe/probe.safetensors", SAFETENSORS),
    ("probe", "without-fold-1/probe.safetensors", SAFETENSORS),
    ("statistics", "fold-1-part-0-sums.safetensors", SAFETENSORS),
    ("uncertainty", "uncertainty/uncertainty.safetensors", SAFETENSORS),
    ("debias", "debias/debias.safetensors", SAFETENSORS),
    ("gate", "gate/gate.safetensors", SAFETENSORS),
    ("gate", "not-debiased/fixed.safetensors", SAFETENSORS),
    ("preference", "preference/preference.safetensors", SAFETENSORS),
    ("model", "model/model.safetensors", SAFETENSORS),
    ("model", "model/armorm/preference.safetensors", SAFETENSORS),
    ("model", "model/armorm/reference.safetensors", SAFETENSORS),
    ("model", "model/tokenizer.json", TOKENIZERS),
    ("bench", "bench/bradley-terry.safetensors", SAFETENSORS),
]


@pytest.fixture
def recipe(rows: Path, tiny_folder: Path) -> Path:
    """The small run's recipe: a run on it finds everything."""
    return write_recipe(rows, tiny_folder)


@pytest.mark.parametrize(("stage", "file", "error"), STAGES, ids=[file for _, file, _ in STAGES])
def test_a_stage_on_a_full_disk_leaves_nothing_and_is_the_same_when_there_is_room(
    armorm: Armorm, recipe: Path, copied: Path, monkeypatch, stage: str, file: str, error: Exception
):
    before = contents(copied, DATED)
    shutil.rmtree(copied / stage)
    if stage == "statistics":
        shutil.rmtree(copied / "probe")  # which reads them
    words = ("train", recipe, "--out", copied, "--quiet")
    with monkeypatch.context() as patched:
        fill_libraries(patched, file, error)
        code, out, err = armorm(*words)
    assert (code, out) == (1, "")
    assert "the disk is full; what is complete is kept: make room and run it again" in message(err)
    assert not passing(copied)
    assert stage == "statistics" or not (copied / stage).exists()
    code, _, err = armorm(*words)
    assert code == 0, err
    assert contents(copied, DATED) == before


@pytest.mark.parametrize("layout", ["armorm", "released"])
@pytest.mark.parametrize(("file", "error"), [("model.safetensors", SAFETENSORS), ("tokenizer.json", TOKENIZERS)])
def test_an_export_on_a_full_disk_leaves_nothing(armorm: Armorm, run: Run, tmp_path, monkeypatch, layout, file, error):
    monkeypatch.setattr("armorm.model.layouts.released.released_faults", lambda _: [])  # its features and template are others
    words = ("export", run.folder / "model", "--layout", layout)
    assert armorm(*words, tmp_path / "whole")[0] == 0
    with monkeypatch.context() as patched:
        fill_libraries(patched, f"out/{file}", error)
        code, out, err = armorm(*words, tmp_path / "out")
    assert (code, out) == (1, "")
    assert f"{tmp_path / 'out'}: the disk is full" in message(err)
    assert [at.name for at in tmp_path.iterdir()] == ["whole"]
    assert armorm(*words, tmp_path / "out")[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("file", "error"), [("model.safetensors", SAFETENSORS), ("tokenizer.json", TOKENIZERS)])
def test_a_model_that_is_saved_on_a_full_disk_is_a_storage_error(tiny_model: RewardModel, tmp_path, monkeypatch, file, error):
    fill_libraries(monkeypatch, f"m/{file}", error)
    with pytest.raises(StorageError, match="m: the disk is full"):
        tiny_model.save_pretrained(tmp_path / "m")


@pytest.fixture(scope="module")
def tuned(rows: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe that trains the decoder, and the folder of that training undisturbed."""
    folder = tmp_path_factory.mktemp("tuned")
    own = Path(shutil.copytree(rows, folder / "rows"))
    recipe = write_recipe(own, tiny_folder, tuning={**TUNING, "lora": {"rank": 2}})
    tune(load_recipe(recipe), "bradley-terry", folder / "tuned" / "bradley-terry", reporter=Reporter(quiet=True))
    return recipe, folder


@pytest.mark.parametrize("place", ["checkpoint", "result"])
def test_a_training_on_a_full_disk_goes_on_when_there_is_room(armorm: Armorm, tuned, tmp_path, monkeypatch, place):
    recipe, whole = tuned
    words = ("tune", recipe, "bradley-terry", "--quiet", "--out")

    def full(*_: object, **__: object) -> None:
        raise TORCH if place == "checkpoint" else SAFETENSORS

    with monkeypatch.context() as patched:
        patched.setattr(*((torch, "save", full) if place == "checkpoint" else (loop, "save_trained", full)))
        code, out, err = armorm(*words, tmp_path / "run")
    assert (code, out) == (1, "")
    assert ("can't be written" if place == "checkpoint" else "the disk is full") in message(err)
    assert not (tmp_path / "run/tuned/bradley-terry").exists()
    assert armorm(*words, tmp_path / "run")[0] == 0
    weights = "tuned/bradley-terry/model/model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (whole / weights).read_bytes()
    assert not passing(tmp_path)


# -- texts and rows on a full disk -------------------------------------------------------------------------------------------

WRITERS = {
    "bench": ("scores.jsonl", "results.json", "results.csv", "report.html", "SHA256SUMS"),
    "audit": ("audit-scores.jsonl", "audit.json", "audit.svg", "audit.md", "audit.html", "SHA256SUMS"),
    "inspect": ("inspect.json", "inspect.html", "SHA256SUMS"),
    "explain": ("page.html",),
}


@pytest.fixture(scope="module")
def few(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs."""
    file = tmp_path_factory.mktemp("few") / "few.jsonl"
    write_lines(file, read_lines(rows / "pairs.jsonl")[:6])
    return file


@pytest.fixture
def written(armorm: Armorm, run: Run, few: Path) -> Callable[[str, Path], tuple[int, str, str]]:
    """Has a command write into a folder."""
    model = run.folder / "model"
    words: Mapping[str, Callable[[Path], tuple[object, ...]]] = {
        "bench": lambda at: ("bench", model, "--suite", few, "--out", at),
        "audit": lambda at: ("audit", model, few, "--only", "filler", "--out", at),
        "inspect": lambda at: ("data", "inspect", few, "--out", at),
        "explain": lambda at: ("explain", model, few, "--html", at / "page.html"),
    }
    return lambda command, at: armorm(*words[command](at))


@pytest.mark.parametrize(("command", "file"), [(command, file) for command, files in WRITERS.items() for file in files])
def test_a_file_that_the_disk_has_no_room_for_is_not_there_and_an_older_one_stays(
    written, tmp_path, monkeypatch, command: str, file: str
):
    kept = ("SHA256SUMS", "scores.jsonl", "audit-scores.jsonl")  # which grow
    for place in ("fresh", "older"):
        at = tmp_path / place
        if place == "older":
            assert written(command, at)[0] == 0
        before = contents(at, kept)
        with monkeypatch.context() as patched:
            fill(patched, file)
            code, out, err = written(command, at)
        if place == "older" and file in kept:  # nothing is added to them
            assert code == 0 or "the disk is full" in message(err)
        else:
            assert (code, out) == (1, "")
            assert f"{file}: the disk is full" in message(err)
        assert not passing(tmp_path)
        assert all(contents(at).values()), "no file is empty"
        if place == "older":
            assert (at / file).read_bytes() == before.get(file, (at / file).read_bytes())
        elif file not in kept:
            assert not (at / file).exists()
        assert written(command, at)[0] == 0
        assert (at / file).is_file()


@pytest.fixture(scope="module")
def table(run: Run, rows: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> CompareResults:
    """A comparison of what the small run has."""
    at = Path(shutil.copytree(run.folder, tmp_path_factory.mktemp("compared") / "run"))
    recipe = load_recipe(write_recipe(rows, tiny_folder, compare={"train": [], "judges": []}))
    compare(recipe, at, reporter=Reporter(quiet=True))
    return read_result(CompareResults, at / "compare" / "results.json")


@pytest.mark.parametrize("file", [*COMPARED, "SHA256SUMS"])
def test_a_comparison_on_a_full_disk_leaves_the_older_one(table: CompareResults, tmp_path, monkeypatch, file: str):
    for place in ("fresh", "older"):
        at = tmp_path / place
        if place == "older":
            write_compare(table, at)
        before = contents(at)
        with monkeypatch.context() as patched:
            fill(patched, file)
            with pytest.raises(StorageError, match=rf"{file}: the disk is full"):
                write_compare(table.model_copy(update={"name": "another"}), at)
        assert not passing(tmp_path)
        assert all(contents(at).values())
        assert place == "fresh" or (at / file).read_bytes() == before[file]
        write_compare(table, at)
        assert set(contents(at)) == {*COMPARED, "SHA256SUMS"}


@pytest.mark.parametrize(
    ("command", "ending"),
    [*((name, end) for name in ("select", "pairs") for end in (".jsonl", ".jsonl.gz", ".parquet")), ("export", ".parquet")],
)
def test_rows_on_a_full_disk_are_not_there(armorm: Armorm, tmp_path, few, monkeypatch, command: str, ending: str):
    scored, out = tmp_path / "scored.jsonl", tmp_path / "new" / f"out{ending}"
    write_lines(scored, [{"prompt": "a", "response": text, "score": len(text)} for text in ("b", "cd", "efg")])
    words: Mapping[str, tuple[object, ...]] = {
        "select": ("select", scored, "--keep-top", 1),
        "pairs": ("pairs", scored),
        "export": ("data", "export", few),
    }

    def full(*_: object, **__: object) -> None:
        raise FULL

    with monkeypatch.context() as patched:
        fill(patched, f"{out.name}.part")
        patched.setattr(pq.ParquetWriter, "write_table", full)
        code, said, err = armorm(*words[command], "--out", out)
    assert (code, said) == (1, "")
    assert str(out) in message(err)
    assert "the disk is full" in message(err)
    assert not contents(out.parent)
    assert not passing(tmp_path)
    assert armorm(*words[command], "--out", out)[0] == 0


# -- places that are none ----------------------------------------------------------------------------------------------------

ENDINGS = (".jsonl", ".JSONL", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet", ".parquet.gz", "")
PLACES = {"below a file": "/dev/null/x", "a long name": "n" * 300, "read-only": "x", "denied": "x", "read-only below": "a/b/x"}
FORBIDDEN = {"read-only": errno.EROFS, "denied": errno.EACCES, "read-only below": errno.EROFS}


CHANGES = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "link", "symlink", "truncate", "chmod", "utime")


def forbid(patched: pytest.MonkeyPatch, folder: Path, number: int, only: tuple[str, ...] = ("open", "os.open", *CHANGES)) -> None:
    """Has nothing below a folder be written, as on a read-only disk or where one has no rights."""

    def refused(path: Any) -> None:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if Path(text).is_relative_to(folder):
            raise OSError(number, os.strerror(number), text)

    def guarded(real: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def call(path: Any, *given: Any, **named: Any) -> Any:
            if writes(*given, **named):
                refused(path)
            return real(path, *given, **named)

        return call

    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    if "os.open" in only:
        patched.setattr(os, "open", guarded(os.open, lambda flags, *_, **__: bool(flags & writing)))
    if "open" in only:
        patched.setattr(io, "open", guarded(io.open, lambda mode="r", *_, **__: bool(set(mode) & set("wax+"))))
        patched.setattr("builtins.open", io.open)
    for name in CHANGES:
        if name in only:
            patched.setattr(os, name, guarded(getattr(os, name), lambda *_, **__: True))


@pytest.fixture(params=PLACES)
def nowhere(request, tmp_path, monkeypatch) -> Iterator[Path]:
    """A path that nothing can be written to; the folder around it, where there is one, stays empty."""
    folder = tmp_path / "place"
    folder.mkdir()
    with monkeypatch.context() as patched:
        if number := FORBIDDEN.get(request.param):
            forbid(patched, folder, number)
        yield folder / PLACES[request.param]
    assert not list(folder.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_scores_that_can_not_be_written_are_one_message(armorm: Armorm, run: Run, few: Path, nowhere: Path, ending: str):
    out = nowhere.with_name(nowhere.name + ending)
    code, said, err = armorm("score", run.folder / "model", few, "--out", out, "--quiet")
    assert code in (1, 2)
    assert said == ""
    assert "is being written by" not in message(err)
    assert str(out)[:40] in message(err)


def test_scores_that_can_not_be_written_are_an_error_of_ours(run: Run, few: Path, nowhere: Path):
    with pytest.raises(StorageError, match="can't be written"):
        score_file(str(run.folder / "model"), few, nowhere.with_name(f"{nowhere.name}.parquet"))


def test_a_page_that_can_not_be_written_is_an_error_of_ours(nowhere: Path):
    with pytest.raises(StorageError, match=r"can't be written: (Read-only|Permission|File name|Not a dir|File exists)"):
        write_text(nowhere, "a")


@pytest.mark.parametrize("command", ["bench", "audit", "inspect", "explain"])
def test_results_that_can_not_be_written_are_one_message(written, nowhere: Path, command: str):
    code, out, err = written(command, nowhere)
    assert code in (1, 2)
    assert out == ""
    assert "is there already" not in message(err)
    assert "can't be" in message(err)


@pytest.mark.parametrize("command", ["tune", "train", "compare", "export", "extract"])
def test_a_place_that_is_none_is_told_before_anything_is_computed(
    armorm: Armorm, run: Run, tuned, nowhere: Path, monkeypatch, command: str
):
    recipe, _ = tuned
    monkeypatch.setattr(loop.Job, "train", lambda *_: pytest.fail("it trains"))
    monkeypatch.setattr("armorm.features.storing.extract", lambda *_, **__: pytest.fail("it computes"))
    words: Mapping[str, tuple[object, ...]] = {
        "tune": ("tune", recipe, "bradley-terry", "--out", nowhere),
        "train": ("train", recipe, "--out", nowhere),
        "compare": ("compare", recipe, "--out", nowhere),
        "extract": ("extract", recipe, "--out", nowhere),
        "export": ("export", run.folder / "model", nowhere),
    }
    code, out, err = armorm(*words[command])
    assert code in (1, 2)
    assert out == ""
    assert any(said in message(err) for said in ("can't be written", "is no folder of a run", "File name too long"))


# -- what is finished --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("only", [("open", "os.open", *CHANGES), ("os.open",), ("mkdir",), ("open",)], ids=lambda only: only[-1])
def test_a_finished_run_that_can_not_be_written_to_is_found(armorm: Armorm, recipe, copied, monkeypatch, number, only):
    before = contents(copied)
    monkeypatch.setattr("armorm.features.storing.extract", lambda *_, **__: pytest.fail("it computes"))
    with monkeypatch.context() as patched:
        forbid(patched, copied, number, only)
        code, out, err = armorm("train", recipe, "--out", copied, "--quiet")
    assert (code, err) == (0, "")
    assert "computed: nothing; everything was there" in out
    assert contents(copied) == before


def test_an_unfinished_run_that_can_not_be_written_to_is_one_message(armorm: Armorm, recipe, copied, monkeypatch):
    shutil.rmtree(copied / "gate")
    before = contents(copied)
    forbid(monkeypatch, copied, errno.EROFS)
    code, out, err = armorm("train", recipe, "--out", copied, "--quiet")
    assert (code, out) == (1, "")
    assert f"{copied / 'gate'}: can't be written: Read-only file system" in message(err)
    assert contents(copied) == before


def test_a_finished_training_that_can_not_be_written_to_is_found(armorm: Armorm, tuned, monkeypatch):
    recipe, folder = tuned
    before = contents(folder)
    forbid(monkeypatch, folder, errno.EROFS)
    monkeypatch.setattr(loop.Job, "train", lambda *_: pytest.fail("it trains"))
    code, _, err = armorm("tune", recipe, "bradley-terry", "--out", folder)
    assert code == 0, err
    assert "bradley-terry: as before" in err
    assert contents(folder) == before
