"""Hostile rows and files of rows through every reader, and now and then through a command.

In: the formats' examples, changed; rows that hypothesis makes; files with bytes changed.  Out: `Outcome`s.  Cost: 1 ms a row.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.torture.hostile import Hostile, deep, hostile_value, mutated, mutated_bytes, shown_as
from tests.torture.outcomes import Outcome

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet", ".ndjson")
COMMANDS = ("score", "best-of", "data validate", "data inspect", "data export", "explain", "audit")
DEEP = 40
SAME = 4
"""One row in so many is read from a file too."""


class Rows(Hostile):
    """Rows, and files whose bytes are changed."""

    name, weight, batch, patience = "rows", 6.0, 600, 20.0

    def inputs(self, draw: random.Random) -> Iterator[tuple[str, Any]]:
        from armorm.data.shapes import SHAPES

        examples = [{**example, "quality": 3} for shape in SHAPES for example in shape.examples]
        made = _made(draw)
        while True:
            way = draw.random()
            if way < 0.55:
                yield "rows, changed", mutated(draw, draw.choice(examples))
            elif way < 0.9:
                yield "rows, made by hypothesis", made.pop() if made else {}
                made = made or _made(draw)
            else:
                suffix = draw.choice(SUFFIXES)
                data = file_of(suffix, [draw.choice(examples) for _ in range(6)])
                yield f"files, changed: {suffix}", (suffix, mutated_bytes(draw, data))

    def attempt(self, place: Path, given: Any) -> tuple[str, str]:
        from armorm.data.answer_rows import answer_row
        from armorm.data.files import BadRecord, Record, records

        if isinstance(given, tuple):
            path = place / f"rows{given[0]}"
            path.write_bytes(given[1])
            return self._read(list(records(path)))
        if not isinstance(given, dict):
            given = {"prompt": given}
        if _depth(given) > DEEP:  # the reader of files names such a row before anything goes through it
            path = place / "rows.jsonl"
            path.write_text(json.dumps(given) + "\n", encoding="utf-8")
            return self._read(list(records(path)))
        found = self._read([Record(1, given, "rows.jsonl")])
        if len(shown_as(given)) % SAME == 0 and _is_json(given):
            path = place / "rows.jsonl"
            path.write_text(json.dumps(given) + "\n", encoding="utf-8")
            (again,) = list(records(path)) or [None]
            if again is None or isinstance(again, BadRecord):
                return found
            one, other = answer_row(Record(1, given, again.where)), answer_row(again)
            if (one.answers, one.faults, one.error) != (other.answers, other.faults, other.error):
                return "silent", "read otherwise from a file"
        return found

    def _read(self, found: list[Any]) -> tuple[str, str]:
        # Through every reader: accepted by one is survived, a fault from each is refused.
        from armorm.data.answer_rows import answer_rows
        from armorm.data.reading import stream_items, stream_pairs, stream_ratings
        from armorm.objectives import Objective, Objectives

        quality = Objectives([Objective(name="quality", min=0, max=4)])
        answers = list(answer_rows(found))
        for row in answers:
            for i, fault in enumerate(row.faults):
                if fault is None:
                    row.conversation(i)
        taken = [
            any(None in row.faults for row in answers),
            *(
                bool(list(rows))
                for rows in (
                    stream_ratings(found, source="rows", objectives=quality, where="rows"),
                    stream_pairs(found, source="rows", where="rows"),
                    stream_items(found, source="rows", where="rows"),
                )
            ),
        ]
        return ("survived", "") if any(taken) else ("refused", "fault")

    def attack(self, draw: random.Random) -> Iterator[Outcome]:
        yield from super().attack(draw)
        yield self._commanded(draw)

    def _commanded(self, draw: random.Random) -> Outcome:
        """A file of such rows through a command."""
        words, suffix = draw.choice(COMMANDS).split(), draw.choice(SUFFIXES)
        inputs, rows = self.inputs(draw), []
        while len(rows) < 40:
            _, given = next(inputs)
            if isinstance(given, dict) and (suffix in (".jsonl", ".json", ".jsonl.gz", ".ndjson") or _is_json(given)):
                rows.append(given)
        with self.world.folder() as place:
            file = place / f"rows{suffix}"
            try:
                file.write_bytes(file_of(suffix, rows))
            except Exception:
                file = place / "rows.jsonl"
                file.write_bytes(file_of(".jsonl", rows))
            model = str(self.world.golden / "train" / "run" / "model")
            out = {"score": ["--out", "o.jsonl"], "best-of": ["--out", "o.parquet"], "audit": ["--out", "o", "--limit", "3"]}
            given = [file.name] if words[0] == "data" else [model, file.name]
            if words[-1] == "export":
                given += ["o.parquet"] if draw.random() < 0.5 else ["o.jsonl"]
            ended = self.world.do([*words, *given, *out.get(words[0], [])], place, limit=120)
            how = {"input": file.read_bytes()[:1500].decode(errors="backslashreplace"), "said": ended.err[-1500:]}
        verdict = {"ok": "survived", "refused": "refused", "hang": "hang"}.get(ended.verdict, "traceback")
        told = (ended.error or "faults") if verdict == "refused" else ended.told if verdict != "survived" else ""
        if verdict == "traceback" and ended.code in (1, 2) and "Traceback" not in ended.err:
            verdict, told = "refused", "faults"
        return Outcome(verdict, f"commands: {' '.join(words)} {suffix}", told, how, ended.rss)


def file_of(suffix: str, rows: list[dict[str, Any]]) -> bytes:
    """Rows as a file of that format."""
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(pa.table({"row": [json.dumps(row) for row in rows], **_columns(rows)}), sink)
        return sink.getvalue()
    if suffix == ".csv":
        text = io.StringIO()
        names = list(dict.fromkeys(str(key) for row in rows for key in row))
        writer = csv.DictWriter(text, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({str(k): v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows)
        return text.getvalue().encode(errors="surrogatepass")
    lines = [json.dumps(row) for row in rows]
    text = f"[{', '.join(lines)}]" if suffix == ".json" else "".join(line + "\n" for line in lines)
    return gzip.compress(text.encode(), mtime=0) if suffix.endswith(".gz") else text.encode()


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    names = {str(key) for row in rows for key in row}
    return {name: [v if isinstance(v := row.get(name), str) else None for row in rows] for name in sorted(names) if name != "row"}


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [b for a in level if isinstance(a, dict | list) for b in (a.values() if isinstance(a, dict) else a)]
    return depth


def _is_json(row: dict[str, Any]) -> bool:
    try:
        text = json.dumps(row, allow_nan=False)
        text.encode()
        return json.loads(text) == row and "\\ud8" not in text
    except (ValueError, RecursionError, TypeError):
        return False


def _made(draw: random.Random) -> list[dict[str, Any]]:
    """Rows that hypothesis makes: names of columns that mean something, values of any kind."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    found: list[dict[str, Any]] = []
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    message = st.fixed_dictionaries(
        {}, optional={"role": st.sampled_from(["user", "assistant", "system", "tool", ""]), "content": leaf}
    )
    value = st.recursive(
        leaf | message, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    )
    names = [
        "prompt",
        "response",
        "chosen",
        "rejected",
        "messages",
        "responses",
        "scores",
        "system",
        "tools",
        "id",
        "quality",
        "score",
    ]
    row = st.dictionaries(st.sampled_from(names) | st.text(max_size=6), value, max_size=6)

    checks = list(HealthCheck)

    @seed(draw.randrange(1 << 30))
    @settings(max_examples=150, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=checks)
    @given(row)
    def collect(one: dict[str, Any]) -> None:
        found.append(one)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collect()
    assert found
    return [*found, {"prompt": deep(200), "response": hostile_value(draw)}]
