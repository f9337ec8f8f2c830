"""Statistics of rated rows: summed once for all candidates, kept per source, found until that source changes."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import planted_store, write_recipe

from armorm.data.rows import RatedResponse
from armorm.errors import CheckpointError, DataError, FitError
from armorm.features.answers import Answers
from armorm.features.spec import FeatureSpec
from armorm.fit.statistics import RidgeStatistics
from armorm.jobs.verify import verify
from armorm.objectives import Objective, Objectives
from armorm.progress import Reporter
from armorm.recipe import Recipe, load_recipe
from armorm.run import summing
from armorm.run.context import RunContext
from armorm.run.probe_stage import fit_probe_stage, predict_test
from armorm.run.summing import fold_statistics
from armorm.run.train import Run, train
from armorm.sums import read_sums

QUIET = Reporter(quiet=True)
D, ROWS, SHARD, FOLDS = 6, 150, 32, 3
ONCE, TWICE = FeatureSpec.parse("final:last"), FeatureSpec.parse("final:last+final:last")
OBJECTIVES = Objectives([Objective(name=name, min=0, max=4) for name in ("a", "b", "c")])
RATED = {"one": "ab", "two": "bc", "three": "c"}


def context_of(objectives: Objectives = OBJECTIVES, *, seed: int = 0, folds: int = FOLDS) -> RunContext:
    recipe = {
        "name": "planted",
        "ratings": [{"path": "r"}],
        "pairs": [{"path": "p"}],
        "features": {"response": [str(ONCE), str(TWICE)], "prompt": "final:last"},
        "splits": {"validation": 0.1, "test": 0.2},
        "probe": {"folds": folds, "alphas": [0.1, 10.0]},
        "seed": seed,
    }
    return RunContext(Recipe.model_validate(recipe), objectives, QUIET)


def plant(folder: Path, name: str, *, rows: int = ROWS) -> Answers:
    """A source that rates some objectives, and leaves one out now and then."""
    rng = np.random.default_rng(len(name))
    features = rng.normal(size=(rows, D)).astype(np.float32)
    talk = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "r"})
    given = np.clip(2 + features[:, :3] + 0.5 * rng.normal(size=(rows, 3)), 0, 4)
    found = []
    for i, row in enumerate(given.tolist()):
        ratings = {o: row["abc".index(o)] for j, o in enumerate(RATED[name]) if i % 7 or j}
        if ratings:
            found.append(RatedResponse(f"{name}{i}", f"{name}-g{i // 3}", name, talk, ratings))
    x = features[: len(found)]
    return planted_store(folder / name, found, x, np.zeros((len(found), D)), np.ones(len(found)), shard_rows=SHARD)


@dataclass
class Stores:
    """Three planted sources, and how often rows of each were read."""

    all: dict[str, Answers]
    read: Counter[str]

    def rows_read(self) -> dict[str, int]:
        """Rows read by source since the last call."""
        found = dict(self.read)
        self.read.clear()
        return found


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    read: Counter[str] = Counter()
    real = Answers.features

    def counting(self: Answers, spec: FeatureSpec, rows: slice = slice(None)) -> Any:
        read[self.folder.name] += len(range(*rows.indices(len(self)))) if spec == ONCE else 0
        return real(self, spec, rows)

    found = {name: plant(tmp_path / "features", name) for name in RATED}
    monkeypatch.setattr(Answers, "features", counting)
    return Stores(found, read)


def direct(context: RunContext, stores: dict[str, Answers], spec: FeatureSpec, fold: int) -> list[RidgeStatistics]:
    found = []
    for store in stores.values():
        at = context.folds(store.groups) == fold
        labels = context.objectives.to_unit(store.ratings(context.objectives))
        found.append(RidgeStatistics.from_rows(store.features(spec)[at], labels[at]))
    return found


def assert_same(found: RidgeStatistics, expected: list[RidgeStatistics]) -> None:
    whole = expected[0]
    for other in expected[1:]:
        whole += other
    assert (found.n, found.rows, found.unlabelled, found.d) == (whole.n, whole.rows, whole.unlabelled, whole.d)
    for column in range(found.k):
        ours, theirs = found.shared((column,)), whole.shared((column,))
        for name in ("gram", "moment", "feature_sum", "label_sum", "label_square_sum"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("held", [1 << 30, 1])
@pytest.mark.parametrize("window", [1 << 26, 1])
def test_they_are_the_sums_over_each_folds_rows(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool, held: int, window: int
):
    monkeypatch.setattr(summing, "HELD", held)
    monkeypatch.setattr(summing, "WINDOW", window)
    context, folder = context_of(), tmp_path / "statistics"
    found = fold_statistics(context, stores.all, [ONCE, TWICE], folder=folder if kept else None)
    assert folder.exists() == kept
    for spec in (ONCE, TWICE):
        assert len(found[spec]) == FOLDS
        for fold in range(FOLDS):
            assert_same(found[spec][fold], direct(context, stores.all, spec, fold))


def test_one_pass_over_each_source_whatever_the_candidates_and_none_where_they_are_kept(stores: Stores, tmp_path: Path):
    first = fold_statistics(context_of(), stores.all, [ONCE, TWICE], folder=tmp_path / "s")
    assert stores.rows_read() == {name: len(store) for name, store in stores.all.items()}
    again = fold_statistics(context_of(), stores.all, [ONCE, TWICE], folder=tmp_path / "s")
    assert stores.rows_read() == {}
    for spec in (ONCE, TWICE):
        for one, other in zip(first[spec], again[spec], strict=True):
            for column in range(3):
                np.testing.assert_array_equal(one.shared((column,)).gram, other.shared((column,)).gram)
    assert stores.rows_read() == {}


def test_a_source_that_is_added_is_the_only_one_that_is_read(stores: Stores, tmp_path: Path):
    context, fewer = context_of(), {name: stores.all[name] for name in ("one", "two")}
    before, _ = fit_probe_stage(tmp_path / "a", context, fewer, statistics=tmp_path / "s")
    predict_test(context, stores.all, before.probe, before.feature)
    stores.rows_read()
    summed = fold_statistics(context, stores.all, [ONCE, TWICE], folder=tmp_path / "s")
    assert stores.rows_read() == {"three": len(stores.all["three"])}
    after, _ = fit_probe_stage(tmp_path / "b", context, stores.all, statistics=tmp_path / "s")
    fresh, _ = fit_probe_stage(tmp_path / "c", context, stores.all)
    np.testing.assert_array_equal(after.probe.alphas, fresh.probe.alphas)
    np.testing.assert_allclose(after.probe.weights, fresh.probe.weights, rtol=1e-10)
    assert not np.allclose(after.probe.weights[2], before.probe.weights[2])
    np.testing.assert_allclose(after.probe.weights[0], before.probe.weights[0])
    assert summed[ONCE][0].n[2] > 0


def test_an_objective_that_is_added_costs_the_sources_that_rate_it(stores: Stores, tmp_path: Path):
    fold_statistics(context_of(Objectives([*OBJECTIVES][:2])), stores.all, [ONCE], folder=tmp_path / "s")
    stores.rows_read()
    found = fold_statistics(context_of(), stores.all, [ONCE], folder=tmp_path / "s")[ONCE]
    assert set(stores.rows_read()) == {"two", "three"}
    assert_same(found[0], direct(context_of(), stores.all, ONCE, 0))
    stores.rows_read()
    turned = context_of(Objectives([*OBJECTIVES][::-1]))
    found = fold_statistics(turned, {"two": stores.all["two"], "one": stores.all["one"]}, [ONCE], folder=tmp_path / "s")[ONCE]
    assert_same(found[0], direct(turned, {"two": stores.all["two"], "one": stores.all["one"]}, ONCE, 0))


@pytest.mark.parametrize("change", ["seed", "folds", "fill", "scale"])
def test_what_they_depend_on_makes_them_new(stores: Stores, tmp_path: Path, change: str):
    fold_statistics(context_of(), stores.all, [ONCE], folder=tmp_path / "s")
    stores.rows_read()
    context, fill = context_of(), None
    if change == "fill":
        fill = np.array([0.5, 0.25, np.nan])
    elif change == "scale":
        context = context_of(Objectives([replace_scale(o) for o in OBJECTIVES]))
    else:
        context = context_of(**{change: 2})
    found = fold_statistics(context, stores.all, [ONCE], folder=tmp_path / "s", fill=fill)[ONCE]
    assert stores.rows_read() == {name: len(store) for name, store in stores.all.items()}
    if fill is not None:
        assert found[0].n[0] == found[0].rows
    else:
        assert_same(found[0], direct(context, stores.all, ONCE, 0))


def replace_scale(objective: Objective) -> Objective:
    return objective.model_copy(update={"max": 5.0})


def test_no_more_sums_are_held_than_there_is_room_for(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Law: a pass holds sums of `HELD` bytes at most, or those of one cell, whichever candidate it is for."""
    real, held = summing._Source._sum, list[int]()

    def counted(self: Any, cells: Any, advance: Any = lambda _done, _note: None) -> Any:
        held.append(sum(summing._bytes(self.store, spec) for spec, _ in cells) if len(cells) > 1 else 0)
        return real(self, cells, advance)

    monkeypatch.setattr(summing._Source, "_sum", counted)
    one = summing._bytes(stores.all["one"], ONCE)
    for room in (1, 2 * one, 5 * one, 100 * one):
        monkeypatch.setattr(summing, "HELD", room)
        fold_statistics(
            context_of(),
            stores.all,
            [TWICE, ONCE, FeatureSpec.parse("final:last+final:last+final:last")],
            folder=tmp_path / f"{room}",
        )
        assert max(held) <= room
        held.clear()


def test_a_small_source_is_not_kept(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(summing, "KEPT", 0.1)
    context = context_of()
    found = fold_statistics(context, stores.all, [ONCE], folder=tmp_path / "s")[ONCE]
    assert not (tmp_path / "s").exists()
    assert_same(found[1], direct(context, stores.all, ONCE, 1))


def test_a_damaged_triangle_is_named_when_it_is_asked_for_and_summed_again_the_next_time(
    stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found = fold_statistics(context_of(), stores.all, [ONCE], folder=tmp_path / "s")[ONCE]
    file = sorted((tmp_path / "s" / "two").rglob("fold-0-part-0.safetensors"))[0]
    whole = bytearray(file.read_bytes())
    whole[-3] ^= 1
    file.write_bytes(bytes(whole))
    with pytest.raises(CheckpointError, match=r"fold-0-part-0.*damaged"):
        [part.triangle() for part in found[0].parts]
    stores.rows_read()
    context = replace(context_of(), reporter=Reporter())
    found = fold_statistics(context, stores.all, [ONCE], folder=tmp_path / "s")[ONCE]
    assert "fold-0-part-0" in "".join(capsys.readouterr().err.split())
    assert stores.rows_read() == {"two": len(stores.all["two"])}
    assert_same(found[0], direct(context, stores.all, ONCE, 0))


def test_permuted_ratings_are_never_kept(stores: Stores, tmp_path: Path):
    context = context_of()
    off = fold_statistics(context, stores.all, [ONCE], folder=tmp_path / "s", permuted=True)[ONCE]
    assert not (tmp_path / "s").exists()
    real = fold_statistics(context, stores.all, [ONCE])[ONCE]
    total, permuted = ([sum(f.n[i] for f in folds) for i in range(3)] for folds in (real, off))
    assert sum(f.rows for f in off) == sum(f.rows for f in real)
    assert np.abs(np.array(total) - permuted).max() < 0.2 * max(total)
    assert not np.allclose(off[0].shared((2,)).moment, real[0].shared((2,)).moment)


def test_a_fold_without_prompts_is_an_error(stores: Stores, tmp_path: Path):
    few = plant(tmp_path / "few", "three", rows=4)
    with pytest.raises(FitError, match=r"folds hold prompts.*probe\.folds"):
        fold_statistics(context_of(folds=5), {"three": few}, [ONCE])


# -- in a run ---------------------------------------------------------------------------------------------------------------


def test_a_run_lists_what_it_keeps_and_verify_checks_it(copied: Path):
    kept = sorted(place.relative_to(copied).as_posix() for place in (copied / "statistics").glob("*/*/SHA256SUMS"))
    assert len(kept) == 2 * 2
    listed = (copied / "SHA256SUMS").read_text()
    assert all(place in listed for place in kept)
    assert verify(copied).whole
    file = next((copied / "statistics").rglob("fold-1-part-0.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    faults = [fault.file for one in verify(copied).checked for fault in one.faults]
    assert faults == ["fold-1-part-0.safetensors"]


@pytest.mark.parametrize("hurt", ["stage.json", "SHA256SUMS", "fold-1-part-0.safetensors"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_run_that_reads_no_statistics_does_not_seal_damage_in_them(
    copied: Path, rows: Path, tiny_folder: Path, hurt: str, gone: bool
):
    listed = (copied / "SHA256SUMS").read_bytes()
    file = next((copied / "statistics").rglob(hurt))
    if gone:
        file.unlink()
    else:
        file.write_bytes(b"?" + file.read_bytes()[1:])
    train(load_recipe(write_recipe(rows, tiny_folder)), copied, reporter=QUIET)
    assert (copied / "SHA256SUMS").read_bytes() == listed
    assert hurt in {fault.file.split("/")[-1] for one in verify(copied).checked for fault in one.faults}


def test_statistics_of_a_data_set_of_the_hub_stand_in_the_runs_list(copied: Path, rows: Path, tiny_folder: Path):
    """Their folder is owner/name: one level further down."""
    one = sorted((copied / "statistics").iterdir())[0]
    (copied / "statistics" / "owner").mkdir()
    shutil.copytree(one, copied / "statistics" / "owner" / "name")
    train(load_recipe(write_recipe(rows, tiny_folder)), copied, reporter=QUIET)
    kept = [at.relative_to(copied).as_posix() for at in (copied / "statistics" / "owner").rglob("SHA256SUMS")]
    assert kept
    assert set(kept) <= set(read_sums(copied))


@pytest.mark.parametrize("place", ["statistics", "statistics/panel", "statistics/panel/2-mean"])
def test_what_stands_in_the_way_of_statistics_is_named_before_anything_is_computed(
    copied: Path, rows: Path, tiny_folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
):
    names = sorted(at.name for at in (copied / "statistics").iterdir())
    file = copied / place.replace("panel", names[0])
    shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
    file.write_text("mine")
    monkeypatch.setattr(summing.Sums, "add", lambda *_: pytest.fail("rows were summed"))
    shutil.rmtree(copied / "probe")
    with pytest.raises(DataError, match="is there already and is no folder"):
        train(load_recipe(write_recipe(rows, tiny_folder)), copied, reporter=QUIET)
    assert file.read_text() == "mine"


def test_a_run_fits_again_from_what_it_kept(
    copied: Path, run: Run, rows: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any) -> Any:
        raise AssertionError("rows were summed")

    monkeypatch.setattr(summing.Sums, "add", refuse)
    shutil.rmtree(copied / "probe")
    shutil.rmtree(copied / "uncertainty")
    again = train(load_recipe(write_recipe(rows, tiny_folder)), copied, reporter=QUIET)
    assert again.computed == ("probe", "uncertainty")
    assert again.results == run.results
    monkeypatch.undo()
