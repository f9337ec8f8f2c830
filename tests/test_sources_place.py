from __future__ import annotations

import dataclasses
import gzip
import json
import os
import sys
from types import SimpleNamespace

import pytest

from armorm.data.files import Record
from armorm.data.opening import Request, open_source
from armorm.data.sources import registry
from armorm.data.sources.place import files_at, place_records
from armorm.data.sources.read import source_pairs, source_ratings
from armorm.data.sources.registry import (
    RELEASED_ORDER,
    objectives_of,
    pair_source,
    pair_sources,
    rating_source,
    rating_sources,
)
from armorm.data.sources.source import Place, RatingSource, each, flat
from armorm.errors import DataError
from armorm.objectives import Objective, Objectives, ScaleMap

TRAIN, TEST, THIRTY = Place(hub="owner/set"), Place(hub="owner/set", split="test"), Place(hub="owner/set", split="30k_train")


def tree(folder, *files):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"file": name}).encode() + b"\n"
        path.write_bytes(gzip.compress(line) if name.endswith(".gz") else line)
    return folder


def names(place, folder):
    return [str(f.relative_to(folder)) for f in files_at(place, str(folder))]


@pytest.mark.parametrize(
    ("place", "files", "chosen"),
    [
        (
            TRAIN,
            ["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet", "data/test-00000-of-00001.parquet"],
            ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
        ),
        (TRAIN, ["train.jsonl.gz", "validation.jsonl.gz"], ["train.jsonl.gz"]),
        (TEST, ["a/train.json", "a/test.json", "b/test.json"], ["a/test.json", "b/test.json"]),
        (THIRTY, ["30k_train.jsonl", "330k_train.jsonl", "30k_test.jsonl", "train.jsonl"], ["30k_train.jsonl"]),
        (TRAIN, ["30k_train.jsonl", "train.jsonl"], ["train.jsonl"]),
        (TRAIN, ["data/train/0000.parquet", "data/test/0000.parquet"], ["data/train/0000.parquet"]),
        (TRAIN, ["evol.jsonl", "flan.jsonl", "README.md", "picture.png"], ["evol.jsonl", "flan.jsonl"]),
        (TRAIN, ["new_collection.json", "test.json"], ["new_collection.json"]),
        (
            TRAIN,
            ["train.jsonl", ".cache/huggingface/download/train.jsonl", ".cache/train.jsonl", "data/.hidden/train.csv"],
            ["train.jsonl"],
        ),
        (dataclasses.replace(TRAIN, data_dir="part"), ["part/train.jsonl", "train.jsonl"], ["part/train.jsonl"]),
        (dataclasses.replace(TRAIN, data_dir="part"), ["train.jsonl"], ["train.jsonl"]),  # the folder itself was given
        (dataclasses.replace(TRAIN, files=("*_a.jsonl",)), ["x_a.jsonl", "train.jsonl"], ["x_a.jsonl"]),
        (
            dataclasses.replace(TEST, files=("**/phase2_{split}.jsonl", "**/*_{split}.jsonl")),
            ["d/phase2_train.jsonl", "d/phase2_test.jsonl", ".git/lfs/phase2_test.jsonl"],
            ["d/phase2_test.jsonl"],
        ),
    ],
)
def test_a_folder_gives_the_files_of_the_split(tmp_path, place, files, chosen):
    assert names(place, tree(tmp_path, *files)) == chosen


def test_the_splits_rows_are_read_file_after_file(tmp_path):
    tree(tmp_path, "b/train.jsonl", "a/train.jsonl.gz", "a/test.jsonl")
    found = list(place_records(TRAIN, str(tmp_path)))
    assert [(r.row, r.values, r.where) for r in found if isinstance(r, Record)] == [
        (1, {"file": "a/train.jsonl.gz"}, str(tmp_path / "a" / "train.jsonl.gz")),
        (1, {"file": "b/train.jsonl"}, str(tmp_path / "b" / "train.jsonl")),
    ]
    assert len(found) == 2


def test_a_file_or_a_pattern_is_taken_as_it_is(tmp_path, monkeypatch):
    tree(tmp_path, "a/test.jsonl", "b/other.jsonl", "b/more.jsonl")
    monkeypatch.setenv("SETS", str(tmp_path))
    assert files_at(TRAIN, str(tmp_path / "a" / "test.jsonl")) == [tmp_path / "a" / "test.jsonl"]
    assert files_at(TRAIN, "$SETS/b/*.jsonl") == [tmp_path / "b" / "more.jsonl", tmp_path / "b" / "other.jsonl"]
    assert files_at(TEST, "${SETS}") == [tmp_path / "a" / "test.jsonl"]


def test_an_environment_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("SETS", raising=False)
    with pytest.raises(DataError, match="SETS is not set"):
        files_at(TRAIN, "${SETS}/hh-rlhf")


def test_a_folder_without_the_splits_files_says_what_is_there_and_how_to_fetch_them(tmp_path):
    tree(tmp_path, "data/test.jsonl", "data/validation.jsonl")
    says = r"holds data/test\.jsonl, data/validation\.jsonl; needed are files that name the split 'train'.*hf download owner/set"
    with pytest.raises(DataError, match=says):
        files_at(TRAIN, str(tmp_path))


def test_an_empty_folder_and_patterns_that_nothing_matches(tmp_path):
    elsewhere = Place(files=("**/phase2_{split}.jsonl",), url="https://example.org/set")
    with pytest.raises(DataError, match=r"no data file at all; needed are \*\*/phase2_train\.jsonl: .*https://example\.org/set"):
        files_at(elsewhere, str(tmp_path))
    with pytest.raises(DataError, match="no file matches"):
        files_at(TRAIN, str(tmp_path / "nowhere"))


def test_a_set_that_is_not_on_the_hub_says_where_it_is():
    place = pair_source("prm800k").place
    with pytest.raises(DataError, match=r"https://github\.com/openai/prm800k.*`path`.*phase2_train\.jsonl"):
        list(place_records(place))


def test_the_hub_is_asked_for_exactly_the_place(monkeypatch):
    calls = []

    def load(path, **options):
        calls.append((path, options))
        return [{"a": 1}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    place = Place(hub="owner/set", split="test", subset="part", data_dir="dir", revision="abc")
    (record,) = place_records(place)
    assert record == Record(1, {"a": 1}, "owner/set/part/dir[test]")
    options = {"name": "part", "split": "test", "revision": "abc", "data_dir": "dir", "streaming": True}
    assert calls == [("owner/set", options)]


def test_an_unreachable_hub_says_how_to_bring_the_files(monkeypatch):
    def load(path, **options):
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    stream = source_pairs(pair_source("shp"))
    with pytest.raises(DataError, match=r"no route.*hf download stanfordnlp/SHP .*as the `path`"):
        list(stream)


# --- the registry ---------------------------------------------------------------------------------------------------------

PAPER = ("helpsteer", "ultrafeedback", "beavertails", "code-ultrafeedback", "prometheus", "capybara", "openorca", "argilla-math")


def test_every_named_set_is_listed():
    assert {*PAPER, "helpsteer2", "armorm-multi"} <= {*rating_sources()}
    ours = {"shp", "hh-helpful", "hh-harmless", "hh-rlhf", "pku-safer", "pku-better", "prm800k", "prometheus2", "preference-700k"}
    assert ours <= {*pair_sources()}
    assert sum(name.startswith("rlhflow-") for name in pair_sources()) == 14


@pytest.mark.parametrize("kind", ["rating", "pair"])
def test_every_source_says_what_it_is(kind):
    sources = rating_sources() if kind == "rating" else pair_sources()
    assert len(sources) >= 10
    for name, source in sources.items():
        assert name == source.name == name.lower().strip()
        assert source.title
        assert source.licence
        assert source.rows >= 0
        assert source.confidence in ("read", "remembered")
        assert source.repeats in ("keep", "drop")
        assert source.place.hub or (source.place.url and source.place.files), f"{name}: neither on the hub nor anywhere else"
        assert source.place.split
        if isinstance(source, RatingSource):
            assert source.rater
            assert source.objectives
        else:
            assert source.made


def test_names_are_unique_across_modules():
    source = rating_source("prometheus")
    with pytest.raises(AssertionError, match="prometheus"):
        registry._by_name([source, source])


@pytest.mark.parametrize(
    ("find", "name", "says"),
    [
        (rating_source, "promethus", r"no rating source 'promethus': did you mean 'prometheus'\?"),
        (pair_source, "hh-harmles", r"no pair source 'hh-harmles': did you mean 'hh-harmless'\?"),
        (pair_source, "zzzz", r"no pair source 'zzzz': there are .*shp"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one_and_all_of_them(find, name, says):
    with pytest.raises(DataError, match=says):
        find(name)


def test_the_papers_sets_have_the_released_objectives_in_their_order():
    assert objectives_of(PAPER).names == RELEASED_ORDER
    assert objectives_of(reversed(PAPER)).names == RELEASED_ORDER
    assert objectives_of(["armorm-multi"]).names == RELEASED_ORDER


def test_other_objectives_follow_the_released_ones():
    names_ = objectives_of(["helpsteer2", "helpsteer"]).names
    assert names_[:5] == RELEASED_ORDER[:5]
    assert set(names_[5:]) == {o.name for o in rating_source("helpsteer2").objectives}


@pytest.mark.parametrize("names_", [["armorm-multi", "helpsteer"], ["prometheus", "armorm-multi"]])
def test_two_scales_for_one_objective_are_refused(names_):
    with pytest.raises(DataError, match=rf"{names_[0]} and {names_[1]} both rate .*: take one of the two"):
        objectives_of(names_)


def rated(name, objective):
    return RatingSource(
        name=name,
        title=name,
        place=TRAIN,
        licence="MIT",
        rows=0,
        rater="human",
        objectives=(objective,),
        unfold=each(lambda r: [flat(r, prompt=r.values["q"], response=r.values["a"], **{objective.name: r.values["score"]})]),
    )


@pytest.mark.parametrize("change", [{"min": 0}, {"max": 10}, {"scale_map": ScaleMap.BIN_CENTRES}])
def test_end_points_and_maps_must_agree(monkeypatch, change):
    one = Objective(name="x", min=1, max=5)
    other = Objective(**{"name": "x", "min": 1, "max": 5, **change})
    known = {"one": rated("one", one), "other": rated("other", other)}
    monkeypatch.setattr(registry, "rating_sources", lambda: known)
    with pytest.raises(DataError, match="one and other both rate x"):
        objectives_of(["one", "other"])
    assert objectives_of(["one", "one"]).names == ("x",)


def test_only_the_wanted_objectives_are_read_and_the_row_keeps_the_name_given(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"q": "A", "a": "B", "score": 3}) + "\n")
    source = rated("one", Objective(name="x", min=1, max=5))
    more = Objectives([Objective(name="y", min=0, max=1), *source.objectives])
    read = source_ratings(source, path=str(tmp_path), objectives=more, name="mine").read()
    assert [(r.id, r.source, r.ratings) for r in read.rows] == [("mine-1", "mine", {"x": 3.0})]


def test_another_split_keeps_only_the_patterns_that_follow_the_split():
    place = Place(hub="a/b", files=("x/{split}.jsonl", "x/train-only.jsonl"), revision="abc")
    assert place.at() == place.at("train") == place
    assert place.at("test") == Place(hub="a/b", split="test", files=("x/{split}.jsonl",), revision="abc")
    assert place.at(revision="def").revision == "def"


@pytest.mark.data
def test_helpful_dialogues_alone_come_from_a_folder_that_has_both():
    if not (folder := os.environ.get("ARMORM_DATA", "")):
        pytest.skip("ARMORM_DATA is not set")
    opened = open_source(Request("hh-helpful", path=f"{folder}/raw/hh-rlhf", split="test", kind="pairs"))
    assert sum(1 for _ in opened.stream) == 2339
