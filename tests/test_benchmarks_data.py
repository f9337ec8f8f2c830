"""Benchmarks: public schemas in the hub's layout, their quirks put right, and what they refuse."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armorm.conversation import fault_in
from armorm.data.benchmarks.benchmark import Rule
from armorm.data.benchmarks.registry import benchmark, benchmark_items, benchmarks
from armorm.data.files import Record
from armorm.data.reading import stream_items
from armorm.errors import DataError

NAMES = (
    "judgebench",
    "judgebench-claude",
    "rewardbench",
    "rewardbench-prior",
    "rewardbench-2",
    "rm-bench",
    "rmb-best-of",
    "rmb-pairs",
)
DATA = os.environ.get("ARMORM_DATA", "")


def user(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]


def lines(path: Path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def listed(path: Path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(rows)), encoding="utf-8")
    return str(path)


def parquet(path: Path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return str(path)


def read(name, path):
    return benchmark_items(benchmark(name), path=str(path)).read()


REWARDBENCH = {
    "prompt": "Say hi.",
    "chosen": "Hi!",
    "chosen_model": "m",
    "rejected": "No.",
    "rejected_model": "n",
    "subset": "alpacaeval-easy",
    "id": 0,
}
PRIOR = {"prompt": user("Hi.", "Hello.", "Help me."), "chosen": "Sure.", "rejected": "No.", "subset": "its-own", "id": 0}
REWARDBENCH_2 = {
    "id": "7",
    "prompt": "Which year?",
    "chosen": ["1969"],
    "rejected": ["1968", "1970", "1971"],
    "num_correct": 1,
    "num_incorrect": 3,
    "total_completions": 4,
    "models": ["a", "b", "c", "d"],
    "subset": "Factuality",
    "additional_metadata": {"category": None, "index": 1.0},
}
RM_BENCH = {
    "id": 12,
    "prompt": "Explain.",
    "chosen": ["a", "aa", "**aaa**"],
    "rejected": ["b", "bb", "**bbb**"],
    "domain": "chat",
    "error_key": "k",
}
JUDGEBENCH = {
    "pair_id": "p-1",
    "original_id": 6603,
    "source": "mmlu-pro-health",
    "question": "Which?",
    "response_model": "gpt-4o-2024-05-13",
    "response_A": "AAAAA",
    "response_B": "BBBBB",
    "label": "B>A",
}
ASKED = [{"content": "Tell me.", "language": "English", "role": "user"}]
RMB_PAIR = {
    "pair_uid": "9218",
    "conversation_input": ASKED,
    "chosen": {"llm_name": "m", "answer": "Good."},
    "reject": {"llm_name": "n", "answer": "Bad."},
    "category_path": "Pairwise_set/Helpfulness/Chat/Discussion",
}
RMB_LIST = {
    "bon_uid": "3294",
    "conversation_input": ASKED,
    "bon_best": {"llm_name": "m", "answer": "Good."},
    "loser_list": [{"llm_name": "n", "answer": "Bad."}, {"llm_name": "o", "answer": "Worse."}],
    "category_path": "BoN_set/Harmlessness/S1",
}


def test_the_benchmarks_are_listed_and_whole():
    assert sorted(benchmarks()) == sorted(NAMES)
    for one in benchmarks().values():
        assert one.aggregates[0].name == "official"
        assert len({a.name for a in one.aggregates}) == len(one.aggregates)
        for aggregate in one.aggregates:
            names = [s.name for s in aggregate.sections]
            subsets = [s for section in aggregate.sections for s in section.subsets]
            assert len(set(subsets)) == len(subsets)
            assert aggregate.weights is None or set(aggregate.weights) == set(names)
            assert all(w > 0 for section in aggregate.sections for w in section.subsets.values())
            if one.rule is not Rule.STYLE_MATRIX:
                assert set(subsets) == set(one.subsets)
    rows = {name: benchmark(name).rows for name in NAMES}
    assert rows["rewardbench"] == 2985
    assert rows["rewardbench-prior"] == 2985 + 6192 + 221 + 1741 + 9000
    assert (rows["rewardbench-2"], rows["rm-bench"], rows["judgebench"], rows["judgebench-claude"]) == (1865, 1327, 350, 270)


def test_an_unknown_benchmark_names_the_close_one():
    with pytest.raises(DataError, match=r"did you mean 'rewardbench-2'.*judgebench"):
        benchmark("rewardbench2")


def test_rewardbench_in_the_hubs_layout(tmp_path):
    other = {**REWARDBENCH, "subset": "hep-cpp", "prompt": "Write it."}
    parquet(tmp_path / "data" / "filtered-00000-of-00001.parquet", REWARDBENCH, other)
    parquet(tmp_path / "data" / "raw-00000-of-00001.parquet", REWARDBENCH, other, other)
    found = read("rewardbench", tmp_path)
    assert found.total == 2
    assert not found.faults.drops
    assert [(i.id, i.subset, i.chosen, i.rejected, i.source) for i in found.rows] == [
        ("alpacaeval-easy/0", "alpacaeval-easy", ("Hi!",), ("No.",), "rewardbench"),
        ("hep-cpp/0", "hep-cpp", ("Hi!",), ("No.",), "rewardbench"),
    ]
    assert found.rows[0].context == tuple(user("Say hi."))


@pytest.mark.parametrize("file", ["mine.jsonl", "mine.jsonl.gz"])
def test_one_file_is_the_core_part(tmp_path, file):
    path = lines(tmp_path / file, REWARDBENCH)
    assert [i.id for i in read("rewardbench", path).rows] == ["alpacaeval-easy/0"]
    assert [i.id for i in read("rewardbench-prior", path).rows] == ["alpacaeval-easy/0"]
    assert benchmark_items(benchmark("rewardbench"), path=path, name="own").read().rows[0].source == "own"


def test_the_prior_sets_stand_beside_the_core(tmp_path):
    parquet(tmp_path / "reward-bench" / "data" / "filtered-00000-of-00001.parquet", REWARDBENCH)
    odd = {**PRIOR, "id": 1, "prompt": [{"role": "human", "content": "Hi."}]}
    for name in ("anthropic_helpful", "anthropic_hhh", "shp", "summarize", "anthropic_harmless", "mtbench_gpt4"):
        parquet(tmp_path / "pref-test-sets" / "data" / f"{name}-00000-of-00001.parquet", PRIOR, odd)
    found = read("rewardbench-prior", tmp_path)
    assert Counter(i.subset for i in found.rows) == {
        "alpacaeval-easy": 1,
        **{f"prior/{n}": 2 for n in ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")},
    }
    assert found.faults.notes["role-by-order"] == 4
    assert found.rows[1].context == tuple(PRIOR["prompt"])
    assert found.rows[2].context == tuple(user("Hi."))
    single = tmp_path / "pref-test-sets" / "data" / "shp-00000-of-00001.parquet"
    assert [i.id for i in read("rewardbench-prior", single).rows] == ["prior/shp/0", "prior/shp/1"]


def test_a_folder_without_a_parts_files_is_refused(tmp_path):
    parquet(tmp_path / "data" / "filtered-00000-of-00001.parquet", REWARDBENCH)
    with pytest.raises(DataError, match="anthropic_helpful"):
        read("rewardbench-prior", tmp_path)
    with pytest.raises(DataError, match=r"RMB-Reward-Model-Benchmark"):
        read("rmb-pairs", tmp_path)
    with pytest.raises(DataError, match="not on the Hugging Face hub"):
        benchmark_items(benchmark("rmb-pairs"))


def test_rows_that_cannot_be_used_are_counted(tmp_path):
    path = lines(
        tmp_path / "mine.jsonl",
        REWARDBENCH,
        {**REWARDBENCH, "id": 1, "rejected": ""},
        {**REWARDBENCH, "id": 2, "subset": None},
        {**REWARDBENCH, "id": 3, "prompt": ["Hi"]},
        {**REWARDBENCH, "id": 4, "rejected": "Hi! "},
        REWARDBENCH,
        {**REWARDBENCH, "prompt": "The same id, another prompt."},
        [],
    )
    found = read("rewardbench", path)
    assert found.total == 8
    assert found.faults.counts == {
        "empty-turn": 1,
        "missing-field": 1,
        "not-text": 1,
        "chosen-equals-rejected": 1,
        "duplicate-id": 1,
        "not-an-object": 1,
    }
    assert [i.id for i in found.rows] == ["alpacaeval-easy/0", "alpacaeval-easy/0~1"]
    assert found.faults.notes == {"repeated-id": 1}


def test_rewardbench_2(tmp_path):
    ref = {**REWARDBENCH_2, "id": "ref:0", "subset": "Ties", "chosen": ["red"], "rejected": ["cat"]}
    tied = {**REWARDBENCH_2, "id": "tied:0", "subset": "Ties", "chosen": ["red", "blue"], "rejected": ["dog", "cat"]}
    bad = [
        {**REWARDBENCH_2, "id": "8", "chosen": ["1969", "69"]},
        {**REWARDBENCH_2, "id": "9", "rejected": []},
        {**tied, "id": "5"},
        {**REWARDBENCH_2, "id": "10", "chosen": "1969"},
        {**REWARDBENCH_2, "id": "11", "rejected": ["a", None]},
        {**REWARDBENCH_2, "id": "12", "rejected": ["a", " ", "b"]},
    ]
    path = parquet(tmp_path / "data" / "test-00000-of-00001.parquet", REWARDBENCH_2, ref, tied)
    assert [(i.id, i.subset, len(i.answers)) for i in read("rewardbench-2", tmp_path).rows] == [
        ("Factuality/7", "Factuality", 4),
        ("Ties/ref:0", "Ties", 2),
        ("Ties/tied:0", "Ties", 4),
    ]
    assert read("rewardbench-2", path).rows[0].rejected == ("1968", "1970", "1971")
    found = read("rewardbench-2", lines(tmp_path / "bad.jsonl", *bad))
    assert not found.rows
    assert found.faults.counts == {"wrong-number-of-answers": 2, "ties-id": 1, "missing-field": 1, "not-text": 1, "empty-turn": 1}


def test_rm_bench(tmp_path):
    rows = [
        RM_BENCH,
        {**RM_BENCH, "domain": "safety-refuse"},
        {**RM_BENCH, "id": 13, "chosen": ["a", "b"]},
        {**RM_BENCH, "id": 14, "chosen": "abc"},
        {**RM_BENCH, "id": 15, "rejected": ["b", "bb", 3]},
        {**RM_BENCH, "id": 16, "domain": None},
    ]
    listed(tmp_path / "data" / "total_dataset.json", *rows)
    listed(tmp_path / "data" / "chat_filtered.json", RM_BENCH)
    found = read("rm-bench", tmp_path)
    assert [(i.id, i.subset, i.chosen, i.rejected) for i in found.rows] == [
        ("chat/12", "chat", tuple(RM_BENCH["chosen"]), tuple(RM_BENCH["rejected"])),
        ("safety-refuse/12", "safety-refuse", tuple(RM_BENCH["chosen"]), tuple(RM_BENCH["rejected"])),
    ]
    assert found.faults.counts == {"wrong-number-of-answers": 1, "missing-field": 2, "not-text": 1}


def test_rm_benchs_domains_in_files_of_their_own(tmp_path):
    without = {k: v for k, v in RM_BENCH.items() if k != "domain"}
    for domain in ("chat", "safety-response"):
        listed(tmp_path / f"{domain}_filtered.json", without)
    found = read("rm-bench", tmp_path / "*_filtered.json")
    assert [i.id for i in found.rows] == ["chat/12", "safety-response/12"]
    assert found.faults.notes["domain-of-file"] == 2


def test_judgebench(tmp_path):
    sources = ["livebench-reasoning", "livebench-math", "livecodebench", "elsewhere"]
    more = [{**JUDGEBENCH, "pair_id": s, "source": s, "label": "A>B"} for s in sources]
    odd = [{**JUDGEBENCH, "pair_id": "q", "label": "A=B"}, {**JUDGEBENCH, "pair_id": "r", "response_A": None}]
    lines(tmp_path / "data" / "dataset=judgebench,response_model=gpt-4o-2024-05-13.jsonl", JUDGEBENCH, *more, *odd)
    lines(tmp_path / "data" / "dataset=judgebench,response_model=claude-3-5-sonnet-20240620.jsonl", JUDGEBENCH)
    lines(tmp_path / "outputs" / "dataset=judgebench,response_model=gpt-4o-2024-05-13,judge_name=arena_hard.jsonl", JUDGEBENCH)
    found = read("judgebench", tmp_path)
    assert [i.subset for i in found.rows] == ["knowledge", "reasoning", "math", "coding", "elsewhere"]
    assert (found.rows[0].chosen, found.rows[0].rejected) == (("BBBBB",), ("AAAAA",))
    assert (found.rows[1].chosen, found.rows[1].rejected) == (("AAAAA",), ("BBBBB",))
    assert found.faults.counts == {"unknown-label": 1, "missing-field": 1}
    assert [i.id for i in read("judgebench-claude", tmp_path).rows] == ["p-1"]
    parquet(tmp_path / "hub" / "data" / "gpt-00000-of-00001.parquet", JUDGEBENCH)
    assert len(read("judgebench", tmp_path / "hub").rows) == 1


def test_rmb(tmp_path):
    base = tmp_path / "RMB_dataset"
    no_path = {k: v for k, v in RMB_PAIR.items() if k != "category_path"}
    odd = [
        {**RMB_PAIR, "pair_uid": "1", "reject": None},
        {**RMB_PAIR, "pair_uid": "2", "reject": {"answer": " "}},
        {**RMB_PAIR, "pair_uid": "3", "conversation_input": "Tell me."},
        {**RMB_PAIR, "pair_uid": "4", "category_path": "Elsewhere/S1"},
    ]
    listed(base / "Pairwise_set" / "Helpfulness" / "Chat" / "Discussion.json", RMB_PAIR, *odd)
    listed(base / "Pairwise_set" / "Harmlessness" / "S1.json", no_path)
    listed(base / "BoN_set" / "Harmlessness" / "S1.json", RMB_LIST, {**RMB_LIST, "bon_uid": "0", "loser_list": []})
    for folder in (tmp_path, base / "Pairwise_set"):
        found = read("rmb-pairs", folder)
        assert {(i.id, i.subset) for i in found.rows} == {
            ("helpfulness/9218", "helpfulness/Chat"),
            ("harmlessness/9218", "harmlessness/S1"),
        }
        assert found.faults.counts == {"missing-field": 3, "empty-turn": 1}
        assert found.faults.notes["category-of-file"] == 1
    (item,) = (best := read("rmb-best-of", tmp_path)).rows
    assert (item.id, item.subset, item.chosen, item.rejected) == (
        "harmlessness/3294",
        "harmlessness/S1",
        ("Good.",),
        ("Bad.", "Worse."),
    )
    assert best.faults.counts == {"missing-field": 1}


def test_a_set_that_lies_there_twice_is_no_larger(tmp_path):
    parquet(tmp_path / "data" / "filtered-00000-of-00001.parquet", REWARDBENCH)
    lines(tmp_path / "filtered.jsonl", REWARDBENCH)
    found = read("rewardbench", tmp_path)
    assert len(found.rows) + sum(found.faults.drops.values()) == found.total == 2
    assert len(found.rows) == 1


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("A>B")
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=2), max_leaves=6
)
GOOD = (REWARDBENCH, PRIOR, REWARDBENCH_2, RM_BENCH, JUDGEBENCH, RMB_PAIR, RMB_LIST)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_record_becomes_an_item_or_a_counted_fault(name, data):
    good = data.draw(st.sampled_from(GOOD))
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(good)), values, max_size=3))
    record = Record(1, {**good, **changed}, "Helpfulness/x.json")
    for part in benchmark(name).parts:
        found = stream_items(part.unfold([record]), source="s", where="here").read()
        assert len(found.rows) + sum(found.faults.drops.values()) == found.total == 1
        for item in found.rows:
            assert item.subset
            assert item.chosen
            assert item.rejected
            assert all(fault_in(item.conversation(answer)) is None for answer in item.answers)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("rewardbench", REWARDBENCH),
        ("rewardbench-2", REWARDBENCH_2),
        ("rm-bench", RM_BENCH),
        ("judgebench", JUDGEBENCH),
        ("rmb-pairs", RMB_PAIR),
        ("rmb-best-of", RMB_LIST),
    ],
)
def test_each_lost_field_is_named_or_not_needed(name, good, tmp_path):
    needed = 0
    for field in good:
        found = read(name, lines(tmp_path / "one.jsonl", {k: v for k, v in good.items() if k != field}))
        if found.faults.drops:
            needed += 1
            assert set(found.faults.counts) == {"missing-field"}
            assert field in found.faults.examples[0]
        else:
            assert len(found.rows) == 1
    assert needed >= 3


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="ARMORM_DATA is not set")
def test_the_rebuilt_part_of_rewardbench():
    found = read("rewardbench", Path(DATA) / "bench" / "rewardbench-partial.jsonl.gz")
    assert Counter(i.subset for i in found.rows) == {
        "math-prm": 447,
        "hep-python": 164,
        "hep-js": 164,
        "hep-java": 164,
        "llmbar-natural": 100,
    }
    assert found.total == 1039
    assert not found.faults.drops
