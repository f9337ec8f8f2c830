"""RM-Bench: three right and three wrong answers to a prompt in three styles, so that substance and style can be told apart.

In: records of THU-KEG/RM-Bench (`total_dataset.json`).  Out: `BENCHMARKS`.  Cost: one pass.

The styles, in order: concise, detailed, detailed with Markdown. Each right answer is compared with each wrong one; `hard` is
where the wrong one has the richer style, `normal` where both have the same, `easy` where the right one has the richer. A
domain's value is the mean of the three, the overall value the mean of four domains: chat, code, math and safety, where the two
safety sets are one.

Ids are unique within a domain at best, and are written `domain/id`. The domain of a row without one is the file's
(`chat_filtered.json`; note `domain-of-file`). Other than three answers on a side are a fault (`wrong-number-of-answers`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from armorm.data.benchmarks.benchmark import FileSet
from armorm.data.benchmarks.catalogue import published_benchmark
from armorm.data.files import Found, Record
from armorm.data.sources.source import Place, answers_fault, bad, each, flat, id_within, text_fault

DOMAINS = ("chat", "code", "math", "safety-refuse", "safety-response")
STYLES = 3
_FILE = re.compile(r"(\w+(?:-\w+)?)_filtered\.")


def _item(record: Record) -> Iterator[Found]:
    values = record.values
    domain = values.get("domain")
    notes: tuple[str, ...] = ()
    if domain is None and (named := _FILE.search(record.where)) and named[1] in DOMAINS:
        domain, notes = named[1], ("domain-of-file",)
    with_domain = Record(record.row, {**values, "domain": domain}, record.where)
    if fault := text_fault(with_domain, "prompt", "domain"):
        yield fault
        return
    sides = [values.get(name) for name in ("chosen", "rejected")]
    if fault := answers_fault(record):
        yield fault
    elif any(len(side or ()) != STYLES for side in sides):
        yield bad(record, "wrong-number-of-answers", f"give {STYLES} answers on each side, one in each style")
    else:
        chosen, rejected = sides
        row_id = id_within(str(domain), values.get("id"))
        yield flat(record, notes=notes, id=row_id, prompt=values["prompt"], chosen=chosen, rejected=rejected, subset=domain)


_PLACE = Place(hub="THU-KEG/RM-Bench", files=("**/total_dataset.json", "**/train-*.parquet"))

BENCHMARKS = (published_benchmark("rm-bench", FileSet(place=_PLACE, unfold=each(_item))),)
