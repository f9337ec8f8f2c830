"""Files of conversations → scores, row by row.

In: a model's name, a file.  Out: rows of JSON, in the file's order.  Cost: the decoder's pass; a chunk of rows in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from armorm.conversation import Conversation, Fault, fault_in
from armorm.data.files import BadRecord, Record, records
from armorm.errors import DataError
from armorm.model.reward_model import CHUNK, RewardModel
from armorm.model.score import Score
from armorm.pipeline.progress import Reporter


def scored_rows(model: str, file: Path, *, full: bool, quiet: bool) -> Iterator[dict[str, Any]]:
    """One row of JSON per record: its id (or row number) and score; a faulty record has `error` in place of a score."""
    found = records(file)
    reward_model = RewardModel.from_pretrained(model)
    reporter, done = Reporter(quiet=quiet), 0
    with reporter.bar(f"scoring {file.name}", 0) as advance:
        while chunk := list(islice(found, CHUNK)):
            parsed = [_conversation(r) for r in chunk]
            good = [c for c in parsed if not isinstance(c, str)]
            scores = iter(reward_model.score(good) if good else [])
            for record, conversation in zip(chunk, parsed, strict=True):
                done += 1
                name = _id(record)
                if isinstance(conversation, str):
                    yield {"id": name, "score": None, "error": conversation}
                else:
                    score = next(scores)
                    yield {"id": name, **(score.to_json() if full else {"score": score.score})}
            advance(done, "")


def explained(model: str, file: Path, row: int) -> Score:
    """The score of one row, taken apart. Raises DataError when there is no such row or it is no conversation."""
    record = next(islice(records(file), row - 1, row), None) if row > 0 else None
    if record is None:
        raise DataError(f"{file}: there is no row {row}")
    conversation = _conversation(record)
    if isinstance(conversation, str):
        raise DataError(f"{file}:{row}: {conversation}")
    return RewardModel.from_pretrained(model).score(conversation)


def _conversation(record: Record | BadRecord) -> Conversation | str:
    if isinstance(record, BadRecord):
        return f"{record.fault}: {record.remedy}"
    values = record.values
    messages: Any = values.get("messages")
    if messages is None:
        prompt = values.get("prompt")
        context = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        messages = [*context, {"role": "assistant", "content": values.get("response")}]
    fault: Fault | None = fault_in(messages)
    return f"{fault}: {fault.remedy}" if fault else messages


def _id(record: Record | BadRecord) -> Any:
    return record.values.get("id", record.row) if isinstance(record, Record) else record.row
