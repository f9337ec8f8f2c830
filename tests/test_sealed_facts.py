"""Sealed files that hold something else than they should, under a seal that is right: named, or computed again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_features_answers as store
from small_run import write_lines
from test_features_answers import decoder as decoder
from test_scoring_files import Counting, simple_rows
from test_scoring_files import run as score
from test_scoring_files import small_windows as small_windows

from armorm.data.shapes import RowFormat
from armorm.disk import digest_of, write_sealed
from armorm.errors import ArmormError
from armorm.features.answers import MANIFEST, column_of, open_answers, store_faults
from armorm.jobs.score_file import how_scored, output_faults
from armorm.objectives import Objective, Objectives
from armorm.run.stages import find_stage, run_stage
from armorm.sums import read_sums, save_sums

GONE = object()
WRONG = (GONE, None, -1, "x", [], {"x": []}, True, 0, 1, 7, 10**30, 10**400, 0.5, "", [[]], [1], ["x"], {}, {"x": 1})
OBJECTIVES = Objectives([Objective(name=name, min=0, max=9) for name in ("help", "safe")])


def places(facts: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The ways to every field, those of objects within included."""
    for name, value in facts.items():
        if name not in ("sha256", "format"):
            yield (*at, name)
            yield from places(value, (*at, name)) if isinstance(value, dict) else ()


def changed(facts: Mapping[str, Any], way: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The same facts with another value, or none, at one place."""
    name, *rest = way
    if rest:
        value = changed(facts[name], tuple(rest), value)
    kept = {key: old for key, old in facts.items() if key not in ("sha256", name)}
    return kept if value is GONE else {**kept, name: value}


def forgeries(path: Path) -> Iterator[tuple[str, bool]]:
    """Puts every wrong value at every place of a sealed file, one at a time; says which, and whether it is another one."""
    facts = json.loads(path.read_text())
    for way in places(facts):
        for value in WRONG if len(way) == 1 else WRONG[:6]:
            write_sealed(path, changed(facts, way, value))
            again = json.loads(path.read_text())
            yield f"{'.'.join(way)}: {value!r:.40}", {**again, "sha256": ""} != {**facts, "sha256": ""}
    write_sealed(path, {key: value for key, value in facts.items() if key != "sha256"})


def read_whole(folder: Path) -> None:
    """Everything that is read of a store on the way to a number."""
    found = open_answers(folder)
    assert found is not None
    for name in (*found.names, "answers"):
        found.column(name)
    found.ratings(OBJECTIVES), found.features(store.BOTH), found.prompts(store.PROMPT)
    for side, spec in (("response", store.BOTH), ("prompt", store.PROMPT)):
        column = column_of([found], side, spec)
        column.rows(np.arange(len(column)))
    assert len(found.items()) == len(found.groups) == len(list(found.contexts())) == len(found)
    assert not list(store_faults(folder))


def test_a_manifest_of_other_values_is_refused(tmp_path, decoder):
    home = store.stored(tmp_path, store.rated(), decoder).folder
    read_whole(home)
    told = Sweep()
    for what, other in forgeries(home / "manifest.json"):
        told.read(what, lambda: read_whole(home), ("manifest.json", "shard-0000"))
        assert all(isinstance(fault, str) for _, fault in store_faults(home)), what
        assert other or what not in told.refused
    read_whole(home)
    sides = json.loads((home / "manifest.json").read_text())
    decisive = set(MANIFEST) - {"answers", "tokens", "truncated", "store_dtype", "backbone"}
    assert decisive <= {what.partition(":")[0] for what in told.refused}
    for name, value in (
        ("shards", []),
        ("shards", 0),
        ("shard_rows", 0),
        ("shard_rows", 10**30),
        ("parts", {}),
        ("rows", 7),
        ("rows", -1),
    ):
        assert any(what == f"{name}: {value!r}" for what in told.refused), (name, value)
    assert sides["rows"] == 8


class Sweep:
    """Tries a reading on many forgeries: it may give something, or be refused with a sentence, and nothing else."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}

    def read(self, what: str, reading: Any, names: tuple[str, ...]) -> None:
        try:
            reading()
        except ArmormError as error:
            self.refused[what] = str(error)
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
        said = self.refused.get(what, names[0])
        assert any(name in said for name in names), (what, said)


@pytest.mark.parametrize(("ending", "stopped"), [("jsonl", True), ("parquet", True), ("jsonl", False)])
def test_a_progress_file_of_other_values_is_refused(tmp_path: Path, small_windows: None, ending: str, stopped: bool):
    write_lines(tmp_path / "rows.jsonl", simple_rows(20))
    (tmp_path / "kept").mkdir()
    kept, out = tmp_path / "kept" / f"out.{ending}", tmp_path / "now" / f"out.{ending}"
    if stopped:
        with pytest.raises(KeyboardInterrupt):
            score(tmp_path / "rows.jsonl", kept, Counting(1))
    else:
        score(tmp_path / "rows.jsonl", kept)
    told = Sweep()
    progress = out.with_name(f"{out.name}.progress.json")
    for what, _ in forgeries(kept.with_name(progress.name)):
        shutil.rmtree(out.parent, ignore_errors=True)
        shutil.copytree(kept.parent, out.parent)
        assert all(isinstance(fault, str) for _, fault in output_faults(progress)), what
        told.read(what, lambda: how_scored(out, RowFormat()), (out.name,))
        told.read(what, lambda: score(tmp_path / "rows.jsonl", out), (out.name,))
    for name in ("inputs: []", "written: 'x'", "state: -1", f"state: {10**30}", "tally: []", "digest: 0", "output: 7"):
        assert name in told.refused


@pytest.mark.parametrize("listed", [False, True])
def test_a_stage_of_other_values_is_computed_again(tmp_path: Path, listed: bool):
    def compute(at: Path) -> tuple[int, dict[str, Any]]:
        (at / "value").write_text("7")
        return 7, {"told": {"of": 1}}

    folder = tmp_path / "stage"
    stage = run_stage(folder, {"a": 1}, compute, lambda at: int((at / "value").read_text()))
    for what, other in forgeries(folder / "stage.json"):
        if listed:  # the list of digests is forged too: only kinds can be told
            save_sums(folder, {**read_sums(folder), "stage.json": digest_of(folder / "stage.json")})
        found = find_stage(folder, stage.key, lambda at: int((at / "value").read_text()))
        assert found is None or not other or (listed and isinstance(found.facts, dict)), what
        assert found is None or not what.startswith("key: ") or not other, what
    write_sealed(folder / "stage.json", {"format": 1, "key": stage.key, "seconds": "x", "facts": []})
    again = run_stage(folder, {"a": 1}, compute, lambda at: int((at / "value").read_text()))
    assert (again.fresh, again.facts) == (True, {"told": {"of": 1}})
