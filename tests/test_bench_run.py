"""Scoring a benchmark's items: whole, in pieces, and after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from armorm.bench.run import score_items
from armorm.data.rows import BenchmarkItem
from armorm.errors import StorageError


def item(i: int, chosen: int = 1, rejected: int = 1) -> BenchmarkItem:
    context = ({"role": "user", "content": f"question {i}"},)
    answers = [tuple(f"{side} {i}-{j}" + "x" * i for j in range(n)) for side, n in (("good", chosen), ("bad", rejected))]
    return BenchmarkItem(f"{i}", f"g{i}", "s", context, answers[0], answers[1], subset="one")


ITEMS = [item(i, chosen=1 + i % 3, rejected=1 + i % 4) for i in range(400)]


class Counting:
    """A scorer whose score can be told from the text, and that counts what it is asked."""

    name = "counting"

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.batches: list[list[str]] = []
        self.stop_after = stop_after

    def score(self, conversations):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        texts = [c[-1]["content"] for c in conversations]
        self.asked += texts
        self.batches.append(texts)
        return np.array([value_of(t) for t in texts])


def value_of(text: str) -> float:
    return float("nan") if text.startswith("bad 7-") else (sum(map(ord, text)) % 997) / 7.0


def expected(one: BenchmarkItem) -> list[float]:
    return [value_of(a) for a in one.answers]


def test_every_answer_is_scored_once_and_lands_in_its_place():
    scorer = Counting()
    told: list[tuple[int, int]] = []
    found = score_items(ITEMS, scorer, progress=lambda done, total: told.append((done, total)))
    for one, scores in zip(ITEMS, found, strict=True):
        np.testing.assert_array_equal(scores, expected(one))
    assert sorted(scorer.asked) == sorted(a for one in ITEMS for a in one.answers)
    assert told[0] == (0, 400)
    assert told[-1] == (400, 400)


def test_a_stopped_run_goes_on_and_gives_the_same(tmp_path: Path):
    kept = tmp_path / "deep" / "scores.jsonl"
    first = Counting(stop_after=600)
    with pytest.raises(KeyboardInterrupt):
        score_items(ITEMS, first, kept=kept, key="model")
    second = Counting()
    found = score_items(ITEMS, second, kept=kept, key="model")
    assert set(first.asked).isdisjoint(second.asked)
    assert len(first.asked) + len(second.asked) == sum(len(one.answers) for one in ITEMS)
    for one, scores in zip(ITEMS, found, strict=True):
        np.testing.assert_array_equal(scores, expected(one))
    third = Counting()
    score_items(ITEMS, third, kept=kept, key="model")
    assert third.asked == []


def test_a_portion_that_was_cut_short_is_scored_again_in_the_same_batch(tmp_path: Path):
    kept = tmp_path / "scores.jsonl"
    first = Counting()
    score_items(ITEMS, first, kept=kept, key="model")
    whole = kept.read_bytes()
    starts = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    assert len(starts) > 4
    kept.write_bytes(whole[: starts[1] + 40] + b"\n" + whole[starts[2] : -20])  # a portion in the middle and the last one
    scorer = Counting()
    score_items(ITEMS, scorer, kept=kept, key="model")
    asked = [tuple(batch) for batch in first.batches]
    assert [tuple(batch) for batch in scorer.batches] == [asked[1], asked[-1]]
    again = Counting()
    score_items(ITEMS, again, kept=kept, key="model")
    assert again.asked == []


def test_a_score_that_is_not_as_it_was_written_is_computed_again(tmp_path: Path):
    kept = tmp_path / "scores.jsonl"
    score_items(ITEMS[:5], Counting(), kept=kept, key="model")
    head, second, *rest = kept.read_text().splitlines()
    digit = next(i for i, letter in enumerate(second) if letter.isdigit() and i > second.index('"scores"'))
    flipped = second[:digit] + chr(ord(second[digit]) ^ 1) + second[digit + 1 :]  # another number, and JSON as before
    assert json.loads(flipped)["values"] != json.loads(second)["values"]
    kept.write_text("\n".join([head, flipped, *rest, ""]))
    scorer = Counting()
    found = score_items(ITEMS[:5], scorer, kept=kept, key="model")
    assert len(scorer.asked) == sum(len(one.answers) for one in ITEMS[:5])  # they were scored together
    for one, scores in zip(ITEMS[:5], found, strict=True):
        np.testing.assert_array_equal(scores, expected(one))


def test_another_models_scores_are_not_taken(tmp_path: Path):
    kept = tmp_path / "scores.jsonl"
    score_items(ITEMS[:5], Counting(), kept=kept, key="one model")
    scorer = Counting()
    score_items(ITEMS[:5], scorer, kept=kept, key="another")
    assert len(scorer.asked) == sum(len(one.answers) for one in ITEMS[:5])
    assert json.loads(kept.read_text().splitlines()[0])["key"] == "another"


def test_a_changed_answer_is_scored_anew(tmp_path: Path):
    kept = tmp_path / "scores.jsonl"
    score_items(ITEMS[:3], Counting(), kept=kept, key="m")
    changed = BenchmarkItem("0", "g0", "s", ITEMS[0].context, ("other",), ITEMS[0].rejected)
    scorer = Counting()
    score_items([changed, *ITEMS[1:3]], scorer, kept=kept, key="m")
    assert scorer.asked == list(changed.answers)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another place"):
        score_items(ITEMS[:1], Counting(), kept=tmp_path / "file" / "scores.jsonl", key="m")
