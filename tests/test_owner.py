"""One owner for what is being written."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from armorm.errors import DataError, InUse, StorageError
from armorm.owner import Passing, owning, owning_folder

HOLD = """
import sys, pathlib
from armorm.owner import owning
with owning(pathlib.Path(sys.argv[1])):
    print(1, flush=True)
    input()
"""


def hold(place: Path) -> None:
    """Hold a place for a moment."""
    with owning(place):
        pass


def held(place: Path) -> subprocess.Popen[str]:
    """Another process that holds a place until it is told to end."""
    found = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert found.stdout is not None
    assert found.stdout.readline() == "1\n"
    return found


def test_a_second_process_is_told_who_holds_the_place(tmp_path: Path):
    other = held(tmp_path / "out.jsonl")
    with pytest.raises(DataError, match=rf"out\.jsonl: is being written by process {other.pid} .*wait until it is done"):
        hold(tmp_path / "out.jsonl")
    hold(tmp_path / "other.jsonl")  # which nobody holds
    other.communicate("\n")
    hold(tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())


def test_who_has_just_taken_a_place_is_named_as_soon_as_it_says_who_it_is(tmp_path: Path):
    lock, file = FileLock(tmp_path / ".out.jsonl.lock"), tmp_path / ".out.jsonl.lock"
    lock.acquire()
    facts = {"process": 4711, "machine": "elsewhere", "command": "armorm score", "since": "now"}
    threading.Timer(0.1, lambda: file.write_text(json.dumps(facts))).start()
    with pytest.raises(InUse, match="by process 4711 on elsewhere"):
        hold(tmp_path / "out.jsonl")
    lock.release()


def test_a_place_whose_owner_is_about_to_leave_is_had(tmp_path: Path):
    lock = FileLock(tmp_path / ".out.jsonl.lock", thread_local=False)  # released by another thread
    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    with owning(tmp_path / "out.jsonl"):
        assert json.loads((tmp_path / ".out.jsonl.lock").read_text())["process"] == os.getpid()


AS_NOBODY = """
import os, pathlib, sys
from armorm.errors import InUse
from armorm.owner import owning
import filelock, fcntl  # before the rights to read them go
os.setgid(65534)
os.setuid(65534)
try:
    with owning(pathlib.Path(sys.argv[1])):
        print("had", flush=True)
        input()
except InUse as error:
    print(error, flush=True)
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can be two users")
def test_two_users_have_one_lock(tmp_path: Path):
    place = Path(tempfile.mkdtemp(dir="/tmp")) / "shared"  # pytest's own folders are one user's
    place.parent.chmod(0o755)
    place.mkdir()
    place.chmod(0o777)

    def other() -> subprocess.Popen[str]:
        words = [sys.executable, "-c", AS_NOBODY, str(place / "out.jsonl")]
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def said(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline()

    try:
        with owning(place / "out.jsonl"):
            first = other()
            assert f"is being written by process {os.getpid()} " in said(first)
            first.communicate()
            (place / ".out.jsonl.lock").chmod(0o600)
            second = other()
            assert "another user's lock stands there" in said(second)
            second.communicate()
        (place / ".out.jsonl.lock").write_text("")  # left by a process that was killed
        (place / ".out.jsonl.lock").chmod(0o644)
        third = other()
        assert said(third) == "had\n"
        with pytest.raises(InUse):
            hold(place / "out.jsonl")
        third.communicate("\n")
        hold(place / "out.jsonl")
    finally:
        shutil.rmtree(place.parent)


@pytest.mark.parametrize("own", ["mine", '{"process": 1}', "[]", "[" * 10**5, " " * 10**5 + "{}"])
def test_a_file_that_is_called_as_the_lock_is_somebody_elses(tmp_path: Path, own: str):
    (tmp_path / ".run.lock").write_text(own)
    with pytest.raises(DataError, match=r"\.run\.lock: is there already and is no lock of armorm's"):
        hold(tmp_path / "run")
    assert (tmp_path / ".run.lock").read_text() == own
    (tmp_path / ".run.lock").unlink()
    (tmp_path / ".run.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is no lock of armorm's"):
        hold(tmp_path / "run")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("own", [owning, owning_folder])
def test_a_pipe_that_is_called_as_the_lock_is_not_waited_for(tmp_path: Path, own):
    (tmp_path / "run").mkdir()
    for lock in (tmp_path / ".run.lock", tmp_path / "run" / ".lock"):
        os.mkfifo(lock)
    with pytest.raises(DataError, match="is no lock of armorm's"), own(tmp_path / "run"):
        pass


@pytest.mark.parametrize("left", ["4711\nelsewhere\n", "4711\nelsewhere\n123456\n"])
def test_a_lock_as_filelock_writes_it_where_the_system_has_none_is_a_lock(tmp_path: Path, left: str):
    (tmp_path / ".run.lock").write_text(left)
    hold(tmp_path / "run")  # which nobody holds: this system has locks
    lock = FileLock(tmp_path / ".run.lock")
    lock.acquire()
    (tmp_path / ".run.lock").write_text(left)
    with pytest.raises(InUse, match="by process 4711 on elsewhere"):
        hold(tmp_path / "run")
    lock.release()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system where files can't be made")
@pytest.mark.parametrize("own", [owning, owning_folder])
def test_a_place_where_no_file_can_be_made_is_not_called_taken(own):
    with pytest.raises(StorageError, match="can't be written: No such file"), own(Path("/proc/self/armorm-out")):
        pytest.fail("the place can't be had")


def test_no_folder_for_temporary_files_is_said_so(monkeypatch: pytest.MonkeyPatch):
    def lacking() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", lacking)
    with pytest.raises(StorageError, match=r"temporary files \(TMPDIR\): can't be written: No usable temporary directory"):
        Passing("armorm-test")


def test_a_folders_lock_stands_in_it_and_leaves_nothing(tmp_path: Path):
    with owning_folder(tmp_path / "made"):
        assert [file.name for file in (tmp_path / "made").iterdir()] == [".lock"]
        with pytest.raises(DataError, match="is being written by process"), owning_folder(tmp_path / "made"):
            pass
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    with owning_folder(tmp_path / "there"):
        pass
    assert (tmp_path / "there").is_dir()


def test_what_a_killed_process_held_is_free(tmp_path: Path):
    other = held(tmp_path / "run")
    other.kill()
    other.communicate()
    hold(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_place_has_one_owner_whatever_way_leads_to_it(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "way").symlink_to(tmp_path / "run")
    with owning(tmp_path / "run"), pytest.raises(DataError, match="is being written"), owning(tmp_path / "way"):
        pass


def test_threads_of_one_process_are_owners_each(tmp_path: Path):
    refused: list[str] = []

    def second() -> None:
        try:
            hold(tmp_path / "run")
        except DataError as error:
            refused.append(str(error))

    with owning(tmp_path / "run"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert f"process {os.getpid()}" in refused[0]


def test_only_one_of_many_gets_it(tmp_path: Path):
    wins, inside, most = [0], [0], [0]

    def work() -> None:
        for _ in range(20):
            try:
                with owning(tmp_path / "run"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    wins[0] += 1
                    inside[0] -= 1
            except DataError:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert wins[0] >= 8


# -- folders that pass --------------------------------------------------------------------------------------------------------


def test_a_passing_folder_stands_as_long_as_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one, other = Passing("some"), Passing("some")
    (one.path / "file").write_text("a")
    assert {folder.name[:5] for folder in tmp_path.iterdir()} == {"some-"}
    place = one.path
    del one
    gc.collect()
    assert list(tmp_path.iterdir()) == [other.path] != [place]


def test_what_a_killed_process_left_goes_and_nothing_else_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import os, signal; from armorm.owner import Passing; held = Passing('some'); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    (left,) = tmp_path.iterdir()
    theirs = tmp_path / "some-thing"
    theirs.mkdir()
    (tmp_path / "some-link").symlink_to(left)
    held = Passing("some")
    assert {f.name for f in tmp_path.iterdir()} == {"some-thing", "some-link", held.path.name}


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_forked_process_leaves_its_parents_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os; from armorm.owner import Passing; held = Passing('some'); child = os.fork(); "
        "child and os.waitpid(child, 0); child and print(held.path.is_dir())"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
    assert not list(tmp_path.iterdir())
