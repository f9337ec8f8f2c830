"""The harness of attacks: a short run of all of them finds nothing broken, and it finds each fault that is put in on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ATTACKS = {"kills", "signals", "disks", "writers", "threads", "strays", "flips", "cuts"} | {
    *("rows", "recipes", "settings", "profiles", "configs", "headers", "templates", "serve")
}


def torture(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.torture", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
def test_a_short_run_of_every_attack_finds_nothing_broken(tmp_path: Path):
    ended = torture("--moves", 2, "--seed", 0, "--json", tmp_path / "torture.json", "--work", tmp_path)
    assert (tmp_path / "torture.json").exists(), f"{ended.stdout}\n{ended.stderr[-6000:]}"
    found = json.loads((tmp_path / "torture.json").read_text(encoding="utf-8"))
    assert {line["attack"] for line in found["attacks"]} == ATTACKS
    assert all(line["tried"] + line["missed"] for line in found["attacks"])
    assert found["all"]["tried"] >= 1000
    assert not found["findings"], f"{ended.stdout}\n{ended.stderr[-6000:]}"
    assert ended.returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["torture.json"]  # the scratch folder is gone


@pytest.mark.slow
def test_faults_put_in_on_purpose_are_found():
    ended = torture("--prove")
    found = json.loads(ended.stdout)
    assert len(found) == 5
    assert {name for name, counts in found.items() if counts["without"] or not counts["with"]} == set(), found
    assert ended.returncode == 0


def test_a_line_counts_by_verdict_and_keeps_one_reproduction_of_what_is_alike():
    from torture.outcomes import Line, Outcome, markdown_table, total

    line = Line("flips")
    for bit in range(3):
        line.add(Outcome("silent", "model/config.json", f"differs at {bit}", {"bit": bit}, rss=100 + bit), "again")
    line.add(Outcome("refused", "model/config.json", "CheckpointError", count=5), "again")
    line.add(Outcome("touched", "files of others", "others/notes.txt"), "again")
    assert (line.tried, line.broken, line.rss) == (8, 4, 102)
    assert [(f["count"], f["bit"], f["command"]) for f in line.findings[:1]] == [(3, 0, "again")]
    assert line.errors == Counter({"CheckpointError": 5})
    facts = line.to_json()
    assert total([facts, facts])["tried"] == 16
    cells = [cell.strip() for cell in markdown_table([facts]).splitlines()[2].split("|")[1:-1]]
    assert cells[:9] == ["flips", "8", "0", "5", "0", "3", "0", "0", "1"]


def test_a_name_that_is_no_attack_is_refused():
    ended = torture("--only", "kills,nonsense")
    assert ended.returncode == 2
    assert "no such attack: nonsense" in ended.stderr
