"""Rows in files: the same rows, orders, caps and splits as rows held in memory; bounded memory; nothing left behind."""

from __future__ import annotations

import errno
import gc
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_in_memory import capped, flow, joined_groups, ordered, stratum, without
from small_run import write_lines, write_recipe, write_rows

from armorm.data import stored_rows
from armorm.data.outlines import outline_of
from armorm.data.reading import FaultCounts, Read
from armorm.data.rows import BenchmarkItem, PreferencePair, RatedResponse
from armorm.data.splits import Split, components, computed_group, group_code, group_name
from armorm.data.starter import build
from armorm.data.stored_rows import Kind, RowFolder, StoredRows, outlines
from armorm.data.summary import summarise
from armorm.errors import DataError, RecipeError, StorageError
from armorm.features.spec import FeatureSpec
from armorm.features.storing import ExtractionSettings, labels_key, store_key
from armorm.recipe import Recipe, load_recipe
from armorm.run import rows as reading
from armorm.run.rows import Rows, read_rows, read_suite, side_of

CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": ["é", 1, None, 2.5, True]}}}
TEXTS = st.text(max_size=12)
CONTENTS = st.sampled_from(["Hi there", "hi  THERE!", "What?", "Why", "\U0001f600 ü\x00\n"]) | TEXTS
CONTEXTS = st.lists(CONTENTS, min_size=1, max_size=3)
ANSWERS = TEXTS | st.lists(TEXTS, min_size=1, max_size=3)
SIDES = st.lists(ANSWERS, min_size=1, max_size=3)
RATINGS = st.dictionaries(st.sampled_from(["help", "safe", "style"]), st.floats(0, 5), min_size=1)
NAMES = st.sampled_from(["", "chat", "code"])
GIVEN = st.none() | st.sampled_from(["c:1", "c:2", "c:3", "c:ü"])
KINDS: tuple[Kind, ...] = ("ratings", "pairs", "bench")
DRAWN = st.tuples(CONTEXTS, SIDES, SIDES, RATINGS, NAMES, NAMES, GIVEN)
SOURCES = st.tuples(st.sampled_from(KINDS), st.lists(DRAWN, max_size=12))
LONG_SOURCES = st.tuples(st.sampled_from(KINDS), st.lists(DRAWN, min_size=8, max_size=40))


def grouped(row: Any, group: str | None) -> Any:
    return replace(row, group=group or computed_group(row))


def answer_of(drawn: str | list[str]) -> Any:
    """A text, or turns with a call."""
    if isinstance(drawn, str):
        return drawn
    return tuple({"role": "assistant", "content": text, "tool_calls": [CALL]} for text in drawn)


def row_of(kind: Kind, row_id: str, drawn: Any) -> Any:
    said, chosen, rejected, ratings, section, subset, given = drawn
    context = tuple({"role": "user", "content": text} for text in said)
    if kind == "ratings":
        messages = (*context, {"role": "assistant", "content": str(chosen[0])})
        return grouped(RatedResponse(row_id, "", "rated", messages, ratings), given)
    if kind == "pairs":
        answers = answer_of(chosen[0]), answer_of(rejected[0])
        return grouped(PreferencePair(row_id, "", "pairs", context, *answers, section, subset), given)
    sides = tuple(map(answer_of, chosen)), tuple(map(answer_of, rejected))
    return grouped(BenchmarkItem(row_id, "", "bench", context, *sides, section, subset), given)


def rows_of(source: tuple[Kind, list[Any]]) -> tuple[Kind, list[Any]]:
    kind, drawn = source
    return kind, [row_of(kind, f"r{i % 7}-{i}", one) for i, one in enumerate(drawn)]


@pytest.fixture(autouse=True, scope="module", params=["usual", "tiny"])
def sizes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every law holds for files of one row group and for those of many, sorted in one part and in many."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tiny":
            patch.setattr(stored_rows, "GROUP", 300)
            patch.setattr(stored_rows, "PART", 500)
        yield


@pytest.fixture
def sizes_of_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are thousands of rows: more in a tiny file's row group."""
    if stored_rows.GROUP < 1000:
        monkeypatch.setattr(stored_rows, "GROUP", 2**16)
        monkeypatch.setattr(stored_rows, "PART", 2**18)


def of_kind(rows: Rows) -> list[dict[str, tuple[Any, ...]]]:
    return [{name: tuple(found) for name, found in sources.items()} for sources in rows.kinds.values()]


# -- one source ---------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(SOURCES, st.data())
def test_rows_read_back_as_they_were_in_any_order(source: tuple[Kind, list[Any]], data: st.DataObject):
    kind, rows = rows_of(source)
    stored = RowFolder().store(kind, rows)
    assert (len(stored), list(stored)) == (len(rows), rows)
    assert [repr(row) for row in stored] == [repr(row) for row in rows], "numbers keep their kind, keys their order"
    assert list(outlines(stored)) == list(outlines(rows)) == list(map(outline_of, rows))
    at = data.draw(st.slices(len(rows)))
    assert list(stored[at]) == rows[at]
    assert list(stored[at][::-1]) == rows[at][::-1]
    assert list(stored[:: 2**70]) == rows[:: 2**70]
    for i in range(-len(rows), len(rows)):
        assert stored[i] == rows[i]
    with pytest.raises(IndexError):
        stored[len(rows)]


@settings(deadline=None, max_examples=25)
@given(LONG_SOURCES, st.integers(1, 12), st.integers(0, 3))
def test_caps_keep_the_same_rows(source: tuple[Kind, list[Any]], cap: int, seed: int):
    kind, rows = rows_of(source)
    stored = RowFolder().store(kind, rows)
    assert tuple(stored.capped(cap, seed=seed)) == capped(rows, cap, seed=seed, strata=stratum)
    assert tuple(stored.capped(None, seed=seed)) == tuple(rows)


@settings(deadline=None, max_examples=25)
@given(st.lists(SOURCES, min_size=1, max_size=4))
def test_groups_orders_and_what_is_left_out_are_the_same(drawn: list[tuple[Kind, list[Any]]]):
    found = list(map(rows_of, drawn))
    folder = RowFolder()
    stored = [folder.store(kind, rows) for kind, rows in found]
    columns = [one.columns for one in stored]
    codes = components(*(np.concatenate([getattr(c, name) for c in columns]) for name in ("prompts", "given")))
    names = joined_groups([row for _, rows in found for row in rows])
    assert list(map(group_name, codes.tolist())) == names
    unwanted = set(names[::3])
    at = 0
    for one, (_, rows) in zip(stored, found, strict=True):
        own = slice(at, at := at + len(rows))
        plain = [replace(row, group=name) for row, name in zip(rows, names[own], strict=True)]
        kept = one.grouped(codes[own]).without(np.array(list(map(group_code, unwanted)), np.uint64))
        assert tuple(kept) == without(plain, unwanted)
        sorted_ = kept.ordered()
        assert tuple(sorted_) == ordered(without(plain, unwanted))
        assert tuple(sorted_.capped(3, seed=1)) == capped(tuple(sorted_), 3, seed=1, strata=stratum)
        assert list(sorted_.outlines()) == list(map(outline_of, sorted_))


SETTINGS = ExtractionSettings(FeatureSpec.parse("final:last").parts, FeatureSpec.parse("final:last").parts, shard_rows=3)


@settings(deadline=None, max_examples=25)
@given(SOURCES)
def test_keys_of_stores_are_those_of_rows_in_memory(source: tuple[Kind, list[Any]]):
    kind, rows = rows_of(source)
    stored = RowFolder().store(kind, rows)
    assert store_key(stored, "decoder", SETTINGS) == store_key(rows, "decoder", SETTINGS)
    assert labels_key(stored) == labels_key(rows)


def test_keys_of_stores_stay_what_they_were():
    """Stores of earlier runs are found again."""
    rows = build(0)
    stored = [RowFolder().store("ratings", rows.ratings[:50]), RowFolder().store("pairs", rows.pairs[:50])]
    assert [store_key(one, "decoder", SETTINGS) for one in stored] == PINNED_STORES
    assert [labels_key(one) for one in stored] == PINNED_LABELS


def test_what_json_does_not_know_becomes_text():
    call = {"type": "function", "function": {"name": "f", "arguments": {"on": np.datetime64("2024-07-26")}}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call]}
    row = grouped(PreferencePair("a", "", "s", ({"role": "user", "content": "q"},), (turn,), "no"), None)
    (found,) = RowFolder().store("pairs", [row])
    assert found.chosen[0]["tool_calls"][0]["function"]["arguments"] == {"on": "2024-07-26"}


# -- a whole recipe -------------------------------------------------------------------------------------------------------------


def in_memory(recipe: Recipe) -> tuple[list[dict[str, tuple[Any, ...]]], dict[Any, Any]]:
    """A recipe's rows in order, and what was read of each source before it was capped, by way of rows held in memory."""
    kinds: list[dict[str, tuple[Any, ...]]] = [{}, {}, {}]
    reads: dict[Any, Any] = {}
    objectives = recipe.load_objectives()
    for kind, places in enumerate((recipe.ratings, recipe.pairs)):
        for source in places:
            name = ("ratings", "pairs")[kind]
            if source.builtin:
                whole = build(recipe.seed).ratings if kind == 0 else build(recipe.seed).pairs
                found = {n: [r for r in whole if r.source == n] for n in sorted({r.source for r in whole})}
                given = {n: Read(tuple(rows), len(rows), FaultCounts({}, {}, ())) for n, rows in found.items()}
            else:
                reader = reading._Reader(recipe, objectives, reading.Reporter(quiet=True), None, RowFolder())
                given = {n: stream.read(recipe.on_fault) for n, stream in reader._streams(name, source)}  # type: ignore[arg-type]
            for n, read in given.items():
                rows = tuple(replace(r, section=source.section) for r in read.rows) if source.section and kind else read.rows
                kinds[kind][n] = capped(rows, source.cap, seed=recipe.seed, strata=stratum)
                reads[name, n] = read
    for suite in recipe.bench:
        reads["bench", suite.name] = read_suite(suite, seed=recipe.seed, on_fault=recipe.on_fault)
        kinds[2][suite.name] = reads["bench", suite.name].rows  # all of which stay out of training
    whole = flow(*kinds)
    for suite in recipe.bench:
        for suites in (kinds[2], whole[2]):
            suites[suite.name] = capped(suites[suite.name], suite.limit, seed=recipe.seed, strata=stratum)
    return whole, {**reads, "capped": kinds}


def assert_same(recipe: Recipe) -> Rows:
    kinds, reads = in_memory(recipe)
    rows = read_rows(recipe, recipe.load_objectives())
    assert of_kind(rows) == kinds
    assert sum(len(found) for sources in kinds for found in sources.values()) > 0
    order = KINDS
    for facts in rows.facts:
        at, read = order.index(facts.kind), reads[facts.kind, facts.name]
        read_in, kept = reads["capped"][at][facts.name], kinds[at][facts.name]
        drops = dict(read.faults.drops)
        drops |= {"over-cap": len(read.rows) - len(read_in)} if len(read.rows) > len(read_in) else {}
        drops |= {"prompt-in-benchmark": len(read_in) - len(kept)} if len(read_in) > len(kept) else {}
        assert (facts.total, dict(facts.drops), dict(facts.notes)) == (read.total, drops, dict(read.faults.notes))
        assert facts.total - sum(facts.drops.values()) == len(facts.rows) == len(kept)
    assert list(rows.faults) == [line for f in rows.facts for line in reads[f.kind, f.name].faults.examples]
    for at, (kind, sides) in enumerate(rows.splits(recipe).items()):
        plain = [side_of(row.group, recipe) for found in kinds[at].values() for row in found]
        assert (kind, sides) == (order[at], {split.value: plain.count(split) for split in Split})
    held = [replace(f, rows=kinds[order.index(f.kind)][f.name]) for f in rows.facts]
    told = (summarise(facts, recipe.load_objectives(), {}).to_json() for facts in (rows.facts, held))
    assert next(told) == next(told)
    small = rows.capped(ratings=7, pairs=5, items=3, seed=recipe.seed)
    caps = dict(zip(order, (7, 5, 3), strict=True))
    for facts, whole in zip(small.facts, rows.facts, strict=True):
        plain = kinds[order.index(facts.kind)][facts.name]
        assert tuple(facts.rows) == capped(plain, caps[facts.kind], seed=recipe.seed, strata=stratum)
        assert facts.drops.get("over-cap", 0) - whole.drops.get("over-cap", 0) == len(whole.rows) - len(facts.rows)
    return rows


def test_a_small_recipes_rows_are_the_same_both_ways(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    write_rows(tmp_path)
    more = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    write_lines(
        tmp_path / "more.jsonl", [{**row, "prompt": row["prompt"] + str(i), "talk": i // 5} for i, row in enumerate(more)]
    )
    pairs = [
        {"path": str(tmp_path / "pairs.jsonl"), "cap": 60, "section": "all"},
        {"path": str(tmp_path / "more.jsonl"), "columns": {"group": "talk"}},
    ]
    assert_same(load_recipe(write_recipe(tmp_path, tiny_folder, pairs=pairs)))


def test_the_starter_sets_rows_are_the_same_both_ways(sizes_of_some_rows: None):
    facts = {
        "name": "starter",
        "objectives": "starter",
        "ratings": [{"builtin": "starter", "cap": 300}],
        "pairs": [{"builtin": "starter", "cap": 400}],
    }
    assert_same(Recipe.model_validate(facts))


@pytest.mark.data
@pytest.mark.skipif("ARMORM_DATA" not in os.environ, reason="ARMORM_DATA does not name the folder with the real data")
def test_real_rows_are_the_same_both_ways(request: pytest.FixtureRequest, sizes_of_some_rows: None):
    if "usual" in request.node.name:
        pytest.skip("a minute for each size is enough for the real data: tiny files have all the seams")
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "open-data.yaml")
    capped = {"ratings": [s.model_copy(update={"cap": 1300}) for s in recipe.ratings if not s.made]}
    capped["pairs"] = [s.model_copy(update={"cap": 700}) for s in recipe.pairs if not s.made]
    rows = assert_same(recipe.model_copy(update=capped | {"harmless": []}))
    assert sum(map(len, rows.ratings.values())) > 5_000
    assert sum(map(len, rows.pairs.values())) > 3_000


# -- files ----------------------------------------------------------------------------------------------------------------------


def some(n: int = 40) -> list[Any]:
    return [
        grouped(PreferencePair(f"p{i}", "", "pairs", ({"role": "user", "content": f"q{i}" * 30},), "yes", "no"), None)
        for i in range(n)
    ]


def grouped_rows(rows: StoredRows[Any]) -> StoredRows[Any]:
    return rows.grouped(rows.columns.prompts)


def test_a_file_goes_when_nobody_holds_its_rows(tmp_path: Path):
    folder = RowFolder(tmp_path)
    rows = grouped_rows(folder.store("pairs", some()))
    part = rows[3:5]
    sorted_ = rows.ordered()
    assert len(list(tmp_path.iterdir())) == 2
    del rows
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 2, "a slice holds it"
    assert [row.id for row in part] == ["p3", "p4"]
    del part
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 1
    assert len(list(sorted_)) == 40
    del sorted_
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_folder_of_the_systems_goes_with_its_rows():
    rows = RowFolder().store("pairs", some())
    place = rows.file.folder.path
    assert place.is_dir()
    del rows
    gc.collect()
    assert not place.exists()


def test_what_fails_while_it_is_read_leaves_no_file(tmp_path: Path):
    def broken() -> Any:
        yield from some()
        raise DataError("no more")

    with pytest.raises(DataError, match="no more"):
        RowFolder(tmp_path).store("pairs", broken())
    assert not list(tmp_path.iterdir())


def test_a_flipped_bit_is_named(tmp_path: Path):
    rows = RowFolder(tmp_path).store("pairs", some())
    (file,) = tmp_path.iterdir()
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 4] ^= 1
    file.write_bytes(whole)
    with pytest.raises(StorageError, match=r"can't be read back.*check the disk and run it again"):
        list(rows)


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path):
    with pytest.raises(StorageError, match="make room or choose another place"):
        RowFolder(tmp_path / "nowhere").store("pairs", some())


def bench_recipe(at: Path, **more: Any) -> Recipe:
    """40 prompts that stand in a benchmark and in pairs, 60 in pairs alone."""
    shared = [{"prompt": f"item {i} of {i * 57}", "chosen": "a b", "rejected": "c"} for i in range(40)]
    own = [{"prompt": f"question {i} of {i * 31}", "chosen": "a b", "rejected": "c"} for i in range(60)]
    write_lines(at / "b.jsonl", shared)
    write_lines(at / "p.jsonl", [*shared, *own])
    write_lines(at / "r.jsonl", [{"prompt": f"rated {i} of {i * 17}", "response": "x y", "q": i % 5} for i in range(40)])
    places = {"ratings": [{"path": str(at / "r.jsonl")}], "pairs": [{"path": str(at / "p.jsonl")}]}
    bench = [{"name": "b", "source": {"path": str(at / "b.jsonl"), **more}}]
    recipe = {"name": "x", "objectives": [{"name": "q", "min": 0, "max": 4}], "probe": {"folds": 2}, **places, "bench": bench}
    return Recipe.model_validate(recipe)


@pytest.mark.parametrize("cap", [None, 5])
def test_prompts_that_a_cap_leaves_out_of_a_benchmark_stay_out_of_training(tmp_path: Path, cap: int | None):
    recipe = bench_recipe(tmp_path, cap=cap)
    rows = read_rows(recipe, recipe.load_objectives())
    assert (len(rows.pairs["p"]), len(rows.suites["b"])) == (60, cap or 40)
    facts = {f.name: dict(f.drops) for f in rows.facts}
    assert facts["p"] == {"prompt-in-benchmark": 40}
    assert facts["b"] == ({} if cap is None else {"over-cap": 35})


def test_sources_that_are_one_folder_on_some_disks_are_refused(tmp_path: Path):
    recipe = bench_recipe(tmp_path)
    write_lines(tmp_path / "R.jsonl", [{"prompt": "p", "response": "x", "q": 1}])
    if len(list(tmp_path.glob("[rR].jsonl"))) < 2:
        pytest.skip("this disk takes both for one")
    places = [
        source.model_copy(update={"path": str(tmp_path / name)}) for name in ("r.jsonl", "R.jsonl") for source in recipe.ratings
    ]
    with pytest.raises(RecipeError, match="two ratings sources are called 'R' and 'r', which are one folder on some disks"):
        read_rows(recipe.model_copy(update={"ratings": places}), recipe.load_objectives())


@pytest.mark.parametrize("fails", ["folder", "open", "write", "close"])
def test_a_disk_that_fills_up_while_rows_are_sorted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str):
    monkeypatch.setattr(stored_rows, "PART", 500)
    rows = grouped_rows(RowFolder(tmp_path).store("ratings", some()))
    full, real = OSError(errno.ENOSPC, "No space left on device"), pa.ipc.new_stream

    class Stream:
        def __init__(self, *given: Any, **named: Any) -> None:
            self.of = real(*given, **named)
            self.said("open")

        def said(self, what: str) -> None:
            if what == fails:
                raise full

        def write_table(self, table: Any) -> None:
            self.said("write")
            self.of.write_table(table)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.of.close()
            self.said("close")

    def no_folder(**_: Any) -> Any:
        raise full

    monkeypatch.setattr(pa.ipc, "new_stream", Stream)
    if fails == "folder":
        monkeypatch.setattr(stored_rows.tempfile, "TemporaryDirectory", no_folder)
    with pytest.raises(StorageError, match="the disk is full"):
        rows.ordered()


def test_a_slice_costs_its_own_rows_and_no_more(tmp_path: Path):
    rows = grouped_rows(RowFolder(tmp_path).store("ratings", some()))
    for part in (slice(3, 9), slice(None, None, -2), slice(30, 4, -3), slice(90, 100)):
        assert [row.id for row in rows[part]] == [row.id for row in list(rows)[part]]
    asked: list[Any] = []

    class Watched(np.ndarray):
        def __getitem__(self, at: Any) -> Any:
            asked.append(at)
            return super().__getitem__(at)

    replace(rows, places=rows.places.view(Watched))[3:9]
    assert asked == [slice(3, 9)]


def test_row_groups_are_bounded_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Going through rows, or through their slices one after the other, unpacks each row group once."""
    monkeypatch.setattr(stored_rows, "GROUP", 500)
    monkeypatch.setattr(stored_rows, "PART", 900)
    rows = grouped_rows(RowFolder(tmp_path).store("pairs", some())).ordered()
    starts = [*rows.file.starts.tolist(), len(rows)]
    sizes = [int(rows.columns.sizes[a:b].sum()) for a, b in pairwise(starts)]
    assert len(sizes) > 10
    assert max(sizes) < 500 + int(rows.columns.sizes.max())
    read = list[int]()
    whole = rows.file._parquet.read_row_group
    monkeypatch.setattr(rows.file._parquet, "read_row_group", lambda group, **how: read.append(group) or whole(group, **how))
    for i in range(0, len(rows), 3):
        list(rows[i : i + 3])
    assert read == list(range(len(sizes)))


PINNED_STORES = ["66b45d3c0cb31e8b", "d958e503ede0595b"]
PINNED_LABELS = ["aa6929cdfca81e49", "aec859d1e284ef8d"]
