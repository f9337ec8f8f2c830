"""How the program ends: streams that are closed, full, unread or not UTF-8, signals at any moment, unexpected errors."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from advisories import judged
from rich.table import Table
from small_run import Armorm, read_lines, write_lines, write_recipe

from armorm.cli import ending, main
from armorm.errors import DataError, StorageError
from armorm.progress import Reporter, Terminal, readable

HOSTILE = "[/red] \\[ \x1b[2J\x1b]0;mine\x07 \x9b31m \r\x08 \u202e"


def shell(line: str, *words: object) -> subprocess.CompletedProcess[str]:
    """A line of sh, in which `armorm` is this program."""
    script = f'armorm() {{ "{sys.executable}" -m armorm "$@"; }}; {line}'
    return subprocess.run(["sh", "-c", script, "sh", *map(str, words)], capture_output=True, text=True, check=False)


def heard() -> None:
    """In a new process: signals do what they usually do, also where these tests run in the background or under nohup."""
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, signal.SIG_DFL)


# -- streams -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["--version", "data sources --json"])
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("armorm {} >&-", 1, "stdout can't be written"),
        ("armorm {} >/dev/full", 1, "the disk is full"),
        ("armorm {} 2>&-", 0, ""),
        ("armorm {} 2>/dev/full", 0, ""),
        ("PYTHONIOENCODING=ascii armorm {}", 0, ""),
        ("{{ armorm {}; echo $? >&2; }} | true", 0, "141"),
    ],
)
def test_a_stream_that_is_closed_full_unread_or_poor_in_letters(command, line, code, said):
    if "/dev/full" in line and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    found = shell(line.format(command))
    assert found.returncode == code, found.stderr
    assert said in found.stderr
    assert "Traceback" not in found.stderr
    assert "Exception ignored" not in found.stderr


LINES = {">/dev/full": (1, "the disk is full"), ">&-": (1, "stdout can't be written"), "| true": (0, "141")}


@pytest.mark.slow
@pytest.mark.parametrize("stream", LINES)
def test_scores_on_a_stream_that_is_closed_full_or_unread(stream, run, rows):
    if "/dev/full" in stream and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    code, said = LINES[stream]
    scores = 'armorm score "$1" "$2" --quiet'
    line = f"{{ {scores}; echo $? >&2; }} {stream}" if stream == "| true" else f"{scores} {stream}"
    found = shell(line, run.folder / "model", rows / "ratings-panel.jsonl")
    assert found.returncode == code, found.stderr
    assert said in found.stderr
    assert "Traceback" not in found.stderr
    assert "Exception ignored" not in found.stderr


PRINTS = {
    "score": "score M FILE --quiet",
    "score, whole": "score M FILE --full",
    "score to a file": "score M FILE --out NEW.jsonl",
    "best-of": "best-of M FILE",
    "select": "select SCORED --keep-top 0.5",
    "pairs": "pairs SCORED",
    "explain": "explain M PAIRS",
    "explain, as JSON": "explain M PAIRS --json",
    "bench": "bench M --suite PAIRS --out NEW",
    "bench, as CSV": "bench M --suite PAIRS --out NEW --csv",
    "audit": "audit M PAIRS --only filler --out NEW",
    "train": "train RECIPE --out RUN --quiet",
    "train, planned": "train RECIPE --out RUN --dry-run",
    "extract": "extract RECIPE --out RUN --quiet",
    "export": "export M NEW",
    "bake": "steer bake M PROFILE NEW",
    "check": "steer check PROFILE M",
    "verify": "verify RUN",
    "doctor": "doctor",
    "inspect": "data inspect FILE",
    "validate": "data validate PAIRS",
    "data export": "data export FILE --out NEW.parquet",
    "help": "--help",
    "a command's help": "score --help",
}


@pytest.fixture(scope="module")
def places(run, rows, tiny_folder, tmp_path_factory) -> dict[str, Path]:
    """What commands are given, by the word that stands for it."""
    folder = tmp_path_factory.mktemp("prints")
    for name, source in (("few", "ratings-panel"), ("pairs", "pairs")):
        write_lines(folder / f"{name}.jsonl", read_lines(rows / f"{source}.jsonl")[:3])
    write_lines(folder / "scored.jsonl", [{"prompt": "a", "response": text, "score": len(text)} for text in ("b", "cd")])
    (folder / "profile.yaml").write_text("name: careful\nfloor: {panel-quality: 0.2}\n")
    own = {"FILE": folder / "few.jsonl", "PAIRS": folder / "pairs.jsonl", "SCORED": folder / "scored.jsonl"}
    recipe = write_recipe(rows, tiny_folder)
    return {**own, "M": run.folder / "model", "RUN": run.folder, "RECIPE": recipe, "PROFILE": folder / "profile.yaml"}


@contextmanager
def stdout_that(fails: str) -> Iterator[None]:
    """In this process, a standard output that is full, closed or unread."""
    reader, unread = os.pipe()
    os.close(reader)
    kept = os.dup(1)  # a closed one is opened again as a device
    place = "/dev/full" if fails == "full" else unread
    stream = None if fails == "closed" else open(place, "w", closefd=fails == "full")  # noqa: SIM115 - closed below
    before, sys.stdout = sys.stdout, stream
    try:
        yield
    finally:
        sys.stdout = before
        if stream is not None:
            stream.close()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(unread)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", PRINTS.values(), ids=list(PRINTS))
def test_every_command_that_prints_ends_well_where_it_can_not(command, places, monkeypatch, capsys, tmp_path):
    for fails, code, said in (("full", 1, "the disk is full"), ("closed", 1, "stdout can't be written"), ("unread", 141, "")):
        new = {
            "NEW": tmp_path / fails / "new",
            "NEW.jsonl": tmp_path / fails / "a.jsonl",
            "NEW.parquet": tmp_path / f"{fails}.parquet",
        }
        words = [str({**places, **new}.get(word, word)) for word in command.split()]
        monkeypatch.setattr(sys, "argv", ["armorm", *words])
        capsys.readouterr()
        with stdout_that(fails), pytest.raises(SystemExit) as left:
            main()
        err = capsys.readouterr().err
        assert left.value.code == code, f"{fails}: {err}"
        assert said in " ".join(err.split())
        assert err.count("error: ") == (1 if said else 0), err
        assert "Traceback" not in err


# -- errors that nobody expected ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("rows.jsonl: no such file"), 2, "rows.jsonl: no such file"),
        (StorageError("no room"), 1, "no room"),
        (KeyError("lost"), 1, "a fault of armorm's own: please report it"),
        (MemoryError(), 1, "not enough memory"),
        (RecursionError("maximum depth"), 1, "nested too deeply"),
        (OSError(errno.EIO, "Input/output error"), 1, "the machine can't do what it was asked to: Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied", "/dev/null/x"), 2, "/dev/null/x: Permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 400), 2, "File name too long"),
        (OSError(errno.EROFS, "Read-only file system", "/ro/x"), 2, "Read-only file system"),
        (OSError(errno.ENOSPC, "No space left on device", "/full/x"), 1, "the disk is full"),
        (OSError(errno.EIO, "Input/output error", "/bad/x"), 1, "Input/output error"),
    ],
)
def test_every_error_has_one_message_and_a_code(armorm: Armorm, monkeypatch, error, code, said):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("armorm.cli.doctor.check_all", fail)
    found, out, err = armorm("doctor")
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert said in " ".join(err.split())
    assert "Traceback" not in err


def test_the_traceback_can_be_asked_for(armorm: Armorm, monkeypatch):
    def fail() -> None:
        raise KeyError("lost")

    monkeypatch.setattr("armorm.cli.doctor.check_all", fail)
    monkeypatch.setenv(ending.TRACEBACK, "1")
    code, _, err = armorm("doctor")
    assert code == 1
    assert "Traceback" in err
    assert "in fail" in err


# -- signals -----------------------------------------------------------------------------------------------------------------

SWALLOWED = """
import signal, sys, time, weakref
from armorm.cli import ending, main

class Thing: pass

def work():
    thing = Thing()
    ref = weakref.ref(thing, lambda _: signal.raise_signal(signal.{0}))
    del thing  # the callback is interrupted, and what it raises is swallowed
    time.sleep({1})
    print("ran on")

ending.run(work)
"""


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("seconds", [20, 0])
def test_an_interruption_that_a_callback_swallows_still_ends_the_program(sent, seconds):
    start = time.monotonic()
    script = SWALLOWED.format(sent, seconds)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, preexec_fn=heard)
    assert found.returncode == 130, found.stderr
    assert time.monotonic() - start < 15
    assert "stopped; what is complete is kept" in found.stderr
    assert "Traceback" not in found.stderr
    assert "ignored" not in found.stderr


def test_a_server_that_is_stopped_while_it_starts_keeps_nothing_to_go_on_from(armorm: Armorm, monkeypatch):
    monkeypatch.setattr("armorm.serving.server.serve", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    code, _, err = armorm("serve", "anything")
    assert (code, err) == (130, "\nstopped\n")
    monkeypatch.setattr("armorm.cli.doctor.check_all", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    code, _, err = armorm("doctor")
    assert code == 130
    assert "stopped; what is complete is kept" in err


def test_a_hangup_that_nohup_took_away_stays_away():
    script = "import signal; from armorm.cli import ending; ending.run(lambda: signal.raise_signal(signal.SIGHUP))"
    found = shell(f'trap "" HUP; "{sys.executable}" -c "$1"', script)
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_a_signal_at_any_moment_ends_a_run(seed, rows, tiny_folder, tmp_path):
    draw = random.Random(seed)
    recipe = write_recipe(rows, tiny_folder)
    words = [sys.executable, "-m", "armorm", "train", str(recipe), "--out", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heard
    )
    time.sleep(draw.uniform(1.0, 20.0))
    started.send_signal(draw.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
    out, err = started.communicate(timeout=120)
    assert started.returncode == 130 or (started.returncode == 0 and "report:" in out), err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


# -- names and texts on a terminal -------------------------------------------------------------------------------------------


def test_names_and_texts_do_nothing_on_a_terminal():
    stream = io.StringIO()
    reporter = Reporter(console=Terminal(file=stream, force_terminal=True, width=200))
    reporter.say(HOSTILE)
    reporter.warn(HOSTILE)
    with reporter.bar(HOSTILE, 3) as advance:
        advance(1, HOSTILE)
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    reporter.console.print(table)
    shown = stream.getvalue()
    assert shown.count("[/red]") >= 6
    for forbidden in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\u202e"):
        assert forbidden not in shown


def test_readable_leaves_words_of_all_languages_alone():
    for text in ("naïve 数据 עברית 😀 e\u0301", "two\nlines\tand a tab"):
        assert readable(text) == text
    assert readable("a\x1b[1mb") == "a\N{REPLACEMENT CHARACTER}[1mb"


def test_an_error_with_markup_in_it_is_text(armorm: Armorm, tmp_path):
    code, _, err = armorm("score", tmp_path, f"{tmp_path}/\\[/red]\x1b[2J.jsonl")
    assert code == 2
    assert "[/red]" in err
    assert "\x1b" not in err


def test_weights_have_the_rights_of_the_other_files(tiny_model, tmp_path):
    before = os.umask(0o022)
    try:
        tiny_model.save_pretrained(tmp_path / "m")
    finally:
        os.umask(before)
    rights = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "m").iterdir()}
    assert set(rights.values()) == {0o644}, rights


# -- promises ----------------------------------------------------------------------------------------------------------------


def test_every_promise_names_tests_that_are_there():
    root = Path(__file__).parents[1]
    text = (root / "SECURITY.md").read_text(encoding="utf-8")
    named = {word for word in text.split("`") if word.startswith("tests/")}
    assert len(named) >= 10
    assert not [name for name in named if not (root / name).is_file()]


@pytest.mark.parametrize(
    ("out", "err", "code", "said"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', "", 0, "1 packages without"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}]}', "Found 1", 1, "a 1: CVE-1"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not on PyPI"}]}', "", 0, "passed over"),
        ('{"dependencies": [{"name": "a", "skip_reason": "x"}, {"name": "b", "vulns": []}]}', "", 0, "not looked up: a"),
        ("", "requests.exceptions.ConnectionError: Max retries exceeded", 0, "passed over"),
        ("", "No module named pip_audit", 1, "No module named pip_audit"),
        ("[]", "", 1, "nothing was said"),
    ],
)
def test_a_known_weakness_fails_and_a_silent_service_does_not(out, err, code, said):
    found, text = judged(out, err)
    assert found == code
    assert said in text
