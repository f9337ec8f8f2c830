"""What rows hold: the numbers against independent ones, near-duplicates planted and found, any file without a traceback."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from armorm.conversation import Message
from armorm.data.inspect import correlations, inspect
from armorm.data.leakage import PERMUTATIONS, PromptIndex, bands, first_prompt, shingles, sketch
from armorm.data.opening import Request, open_source
from armorm.data.reading import stream_items
from armorm.data.rows import BenchmarkItem
from armorm.errors import DataError
from armorm.report.data_report import findings, render_data_page

WORDS = [
    f"{a}{b}" for a in ("ra", "mo", "ti", "ke", "su", "lo", "ne", "fa") for b in ("ba", "dri", "gon", "mel", "pus", "tor", "vix")
]


def lines(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def rated(i: int, answer: str, **ratings) -> dict:
    return {"prompt": f"question number {i} about {WORDS[i % len(WORDS)]}", "response": answer, **ratings}


def prompts(count: int, *, seed: int, words: int = 24) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=words)) for _ in range(count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Twenty answers by rising length; `long` is their length's rank, `even` knows nothing of it, half the rows lack it."""
    rows = [rated(i // 2, "x" * (i + 1), long=i, even=i % 4 // 2 if i % 2 else None) for i in range(20)]
    rows += [{"prompt": "q", "response": "same answer", "long": "n/a"}, {"prompt": "q", "response": ""}]
    rows += [{"prompt": "q", "response": "same answer", "long": n} for n in (3, 5)]
    draw = random.Random(0)
    draw.shuffle(rows)
    return lines(tmp_path / "rows.jsonl", rows)


def test_counts_labels_and_repeats(file: Path):
    typed = inspect(open_source(Request(str(file))))
    facts = typed.to_json()
    assert facts["counts"] == {
        "records": 24,
        "rows": 22,
        "prompts": 11,
        "faults": {"no-rating": 1, "empty-turn": 1},
        "skipped": {},
        "notes": {"rating-na": 1},
        "examples": facts["counts"]["examples"],
    }
    assert len(facts["counts"]["examples"]) == 2
    by_name = {o["name"]: o for o in facts["objectives"]}
    assert (by_name["long"]["n"], by_name["even"]["n"], by_name["even"]["share"]) == (22, 10, 10 / 22)
    assert (by_name["long"]["min"], by_name["long"]["max"]) == (0, 19)
    assert by_name["even"]["histogram"] == {"values": [0.0, 1.0], "counts": [5, 5]}
    assert sum(by_name["long"]["histogram"]["counts"]) == 22
    assert facts["patterns"]["different"] == 2
    assert {frozenset(p["objectives"]): p["rows"] for p in facts["patterns"]["most"]} == {
        frozenset({"long"}): 12,
        frozenset({"long", "even"}): 10,
    }
    assert facts["duplicates"] == {
        "answers": 22,
        "distinct": 21,
        "repeated": 1,
        "most": [{"times": 2, "answer": "same answer"}],
    }
    assert facts["rows_per_prompt"]["max"] == 2
    assert facts["rows_per_prompt"]["one"] == 0
    assert any("numbers" in r and "long (0 to 19)" in r for r in facts["remarks"])


def test_lengths_and_correlation_are_those_of_numpy_and_scipy(file: Path):
    typed = inspect(open_source(Request(str(file))))
    facts = typed.to_json()
    kept = [r for r in map(json.loads, file.read_text().splitlines()) if r["response"] and r.get("long") not in (None, "n/a")]
    lengths, ratings = [len(r["response"]) for r in kept], [r["long"] for r in kept]
    found = {o["name"]: o["length"] for o in facts["objectives"]}["long"]
    assert found["n"] == len(kept) == 22
    assert found["pearson"]["value"] == pytest.approx(stats.pearsonr(lengths, ratings).statistic, abs=1e-9)
    assert found["spearman"]["value"] == pytest.approx(stats.spearmanr(lengths, ratings).statistic, abs=1e-9)
    assert found["spearman"]["low"] < found["spearman"]["value"] < found["spearman"]["high"]
    characters = facts["lengths"]["answer"]["characters"]
    assert (characters["mean"], characters["median"]) == (pytest.approx(np.mean(lengths)), np.median(lengths))
    assert sum(characters["histogram"]["counts"]) == 22
    assert facts["lengths"]["answer"]["words"]["max"] == 2


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 9999), st.integers(0, 5)), min_size=3, max_size=40),
    st.sampled_from([1.0, 1e-12, 1e12]),
)
@settings(max_examples=40, deadline=None)
def test_correlations_never_leave_their_range(rows, scale: float):
    values, length, prompt_of = (np.array(column) for column in zip(*rows, strict=True))
    for one in correlations(values.astype(float) * scale, length.astype(float), prompt_of.astype(np.int64), seed=0):
        assert np.isnan(one.value) or -1 - 1e-6 <= one.value <= 1 + 1e-6


def test_a_constant_rating_or_length_has_no_correlation():
    ones, rising, prompt_of = np.ones(9), np.arange(9.0), np.arange(9)
    for values, length in ((ones, rising), (rising, ones), (ones, ones), (ones / 3 * 1e6, rising)):
        assert all(np.isnan(one.value) for one in correlations(values, length, prompt_of, seed=0))


def test_pairs_say_how_often_the_longer_answer_was_chosen(tmp_path: Path):
    rows = [{"prompt": f"p {i}", "chosen": "a" * (9 if i < 6 else 2), "rejected": "b" * 4} for i in range(8)]
    rows.append({"prompt": "equal", "chosen": "aaaa", "rejected": "bbbb", "section": "chat", "subset": "easy"})
    typed = inspect(open_source(Request(str(lines(tmp_path / "pairs.jsonl", rows)))))
    facts = typed.to_json()
    assert facts["kind"] == "pairs"
    longer = facts["longer_chosen"]["characters"]
    assert (longer["value"], longer["n"], longer["equal"]) == (0.75, 8, 1)
    assert longer["low"] < 0.75 < longer["high"]
    assert facts["longer_chosen"]["words"] == {"value": None, "low": None, "high": None, "n": 0, "equal": 9}
    assert facts["subsets"] == {"chat/easy": 1}
    assert "objectives" not in facts
    assert any("75.0 %" in sentence for sentence in findings(typed))


def edited(prompt: str, how: str) -> str:
    words = prompt.split()
    return {
        "politeness": "Please " + prompt + ", thank you!",
        "case": prompt.upper().replace(" ", ",  "),
        "one word": " ".join([*words[:11], "quickly", *words[12:]]),
        "left out": " ".join([*words[:4], *words[5:]]),
        "swapped ends": " ".join([*words[-2:], *words[:-2]]),
    }[how]


@pytest.mark.parametrize("how", ["politeness", "case", "one word", "left out", "swapped ends"])
def test_planted_near_duplicates_are_found(how: str):
    known = prompts(200, seed=1)
    index = PromptIndex("bench")
    for i, prompt in enumerate(known):
        index.add(str(i), prompt)
    found = [index.query(edited(prompt, how)) for prompt in known]
    right = sum(m is not None and m.id == str(i) for i, m in enumerate(found))
    assert right >= 198
    assert all(m.exact == (how == "case") for m in found if m is not None)
    assert all(m.similarity >= index.threshold for m in found if m is not None)


def test_other_prompts_are_not_near_duplicates():
    index = PromptIndex("bench")
    for i, prompt in enumerate(prompts(200, seed=1)):
        index.add(str(i), prompt)
    assert not [p for p in prompts(500, seed=2) if index.query(p) is not None]
    halves = [
        " ".join([*p.split()[:12], *q.split()[:12]]) for p, q in zip(prompts(200, seed=1), prompts(200, seed=3), strict=True)
    ]
    assert not [p for p in halves if index.query(p) is not None]


def test_the_similarity_is_the_shingles_jaccard_and_the_threshold_decides():
    one, other = "a b c d e f g h", "a b c d e f g z"
    assert shingles(one) & shingles(other) == {b"a b c", b"b c d", b"c d e", b"d e f", b"e f g"}
    for threshold, found in ((0.7, True), (0.72, False)):
        index = PromptIndex("bench", threshold=threshold)
        index.add("only", one)
        match = index.query(other)
        assert (match is not None) == found
        if match:
            assert match.similarity == pytest.approx(5 / 7)


def test_an_index_is_deterministic_and_reads_prompts_once():
    def answers() -> list:
        index = PromptIndex("bench")
        for i, prompt in enumerate(prompts(50, seed=1)):
            index.add(str(i), prompt)
            index.add("again", prompt + " !")
        assert len(index) == 50
        return [index.query(edited(p, "one word")) for p in prompts(50, seed=1)]

    random.seed(1)
    first = answers()
    random.seed(2)
    assert answers() == first


@pytest.mark.parametrize("prompt", ["", " ", "?!…", "hi", "hi there", "日本の首都はどこですか", "\ud800 x y z", "x" * 10_000])
def test_any_prompt_has_a_sketch(prompt: str):
    index = PromptIndex("bench")
    index.add("one", prompt)
    match = index.query(prompt)
    assert match is not None
    assert match.exact
    assert index.query("an entirely different question about something else") is None


def test_scripts_without_spaces_are_compared_by_character():
    assert len(shingles("日本の首都はどこ")) == 6
    index = PromptIndex("bench")
    index.add("one", "日本の首都はどこですか教えてください")
    match = index.query("日本の首都はどこですか教えて")
    assert match is not None
    assert not match.exact


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.6, 0.7, 0.9, 1.0])
def test_bands_find_what_is_at_the_threshold(threshold: float):
    count, rows = bands(threshold)
    assert count * rows <= PERMUTATIONS
    assert 1 - (1 - threshold**rows) ** count >= 0.99


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1])
def test_a_threshold_outside_its_range_is_refused(threshold: float):
    with pytest.raises(DataError, match="above 0 and at most 1"):
        PromptIndex("bench", threshold=threshold)


def test_leakage_counts_prompts_and_rows_by_benchmark(tmp_path: Path):
    known = prompts(6, seed=1)
    rows = [{"prompt": p, "response": f"answer {i}", "score": i} for i, p in enumerate([known[0], known[0], known[1]])]
    rows += [{"prompt": edited(known[2], "one word"), "response": f"other {i}", "score": i} for i in range(3)]
    rows += [{"prompt": p, "response": "another", "score": 1} for p in prompts(4, seed=9)]
    items = [
        BenchmarkItem(f"b{i}", "g", "bench", (Message(role="user", content=p),), ("a",), ("b",)) for i, p in enumerate(known)
    ]
    indexes = [PromptIndex.of("bench", items), PromptIndex.of("empty", [])]
    typed = inspect(open_source(Request(str(lines(tmp_path / "rows.jsonl", rows)))), indexes)
    facts = typed.to_json()
    bench, empty = facts["leakage"]
    assert (bench["exact"], bench["near"]) == ({"prompts": 2, "rows": 3}, {"prompts": 1, "rows": 3})
    assert (empty["exact"], empty["near"]) == ({"prompts": 0, "rows": 0}, {"prompts": 0, "rows": 0})
    assert [e["item"] for e in bench["examples"]] == ["b0", "b1", "b2"]
    assert bench["examples"][2]["prompt"] != bench["examples"][2]["benchmark_prompt"]
    assert any("2 prompts exactly (3 rows) and 1 prompt nearly (3 rows)" in s for s in findings(typed))


def test_a_prompt_is_its_first_user_turn():
    turns = [("system", "s"), ("user", "first"), ("assistant", "a"), ("user", "second")]
    assert first_prompt([Message(role=r, content=c) for r, c in turns]) == "first"
    assert first_prompt([]) == ""
    assert sketch("first").shingles.size == 1


def test_the_page_is_self_contained_and_escapes_what_rows_say(tmp_path: Path):
    hostile = "<script>alert(1)</script> <img src=x onerror=alert(1)>"
    rows = [{"prompt": f"{hostile} {i}", "response": hostile + "!" * i, "<b>score</b>": i % 3} for i in range(6)]
    index = PromptIndex("<i>bench</i>")
    index.add("x", f"{hostile} 1")
    typed = inspect(open_source(Request(str(lines(tmp_path / "rows.jsonl", rows)))), [index])
    page = render_data_page(typed)
    assert page == render_data_page(typed)
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>score" not in page
    assert "<i>bench" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert page.count("<svg") == 4
    for name in ("records", "ratings", "labels", "lengths", "follows", "repeats", "leakage"):
        assert f'id="{name}"' in page


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
turn = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "x"]), "content": st.text(max_size=6) | json_values}
)
plausible = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.text(max_size=12) | json_values,
        "response": st.text(max_size=6) | json_values,
        "messages": st.lists(turn, max_size=4) | json_values,
        "chosen": st.text(max_size=6) | st.lists(turn, max_size=3),
        "rejected": st.text(max_size=6) | st.lists(turn, max_size=3),
        "id": json_values,
        "section": json_values,
        "score": st.floats() | st.integers() | st.sampled_from(["4", "N/A", "true", "x"]),
        "s2": st.floats(-1e300, 1e300),
        "messages ": json_values,
    },
)
any_rows = st.lists(plausible | json_values, max_size=8)


@given(any_rows, st.sampled_from([None, "ratings", "pairs"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_rows_are_inspected_or_counted_as_faulty(tmp_path: Path, rows, kind):
    path = lines(tmp_path / "any.jsonl", rows)
    index = PromptIndex("bench")
    index.add("x", "a b c d")
    typed = inspect(open_source(Request(str(path), kind=kind)), [index])
    facts = typed.to_json()
    counts = facts["counts"]
    assert counts["records"] == len(rows)
    assert counts["rows"] + sum(counts["faults"].values()) + sum(counts["skipped"].values()) == counts["records"]
    assert "NaN" not in json.dumps(facts)
    assert "Infinity" not in json.dumps(facts)
    for objective in facts.get("objectives", []):
        assert sum(objective["histogram"]["counts"]) == objective["n"]


@given(any_rows)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_rows_make_a_page(tmp_path: Path, rows):
    rows = [*rows, {"prompt": "p", "response": "r", "score": 1}, {"prompt": "p", "response": "r", "score": 2.5}]
    typed = inspect(open_source(Request(str(lines(tmp_path / "any.jsonl", rows)), kind="ratings")))
    assert "</html>" in render_data_page(typed)


def test_no_rows_make_a_page_too(tmp_path: Path):
    (tmp_path / "none.jsonl").write_text("", encoding="utf-8")
    typed = inspect(open_source(Request(str(tmp_path / "none.jsonl"))))
    facts = typed.to_json()
    assert facts["counts"]["rows"] == 0
    assert "</html>" in render_data_page(typed)


needs_data = pytest.mark.skipif("ARMORM_DATA" not in os.environ, reason="ARMORM_DATA does not name the folder with the real data")


@pytest.mark.data
@needs_data
def test_real_ratings_follow_length_and_share_no_prompt_with_the_benchmark():
    from armorm.data.files import expand, records

    (bench,) = expand("$ARMORM_DATA/bench/dev-pairs.jsonl.gz")
    index = PromptIndex.of("dev-pairs", stream_items(records(bench), source="dev-pairs", where=str(bench)))
    typed = inspect(open_source(Request("$ARMORM_DATA/ratings/just-eval.jsonl.gz")), [index])
    facts = typed.to_json()
    assert (facts["counts"]["rows"], facts["counts"]["prompts"]) == (657, 644)
    rho = {o["name"]: o["length"]["spearman"]["value"] for o in facts["objectives"] if o["n"]}
    assert len(rho) == 6
    assert rho["computed-verbosity"] > 0.95
    assert abs(rho["just-eval-clarity"]) < 0.2
    assert facts["leakage"][0]["exact"] == {"prompts": 0, "rows": 0}
