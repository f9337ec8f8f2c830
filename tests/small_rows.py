"""Rows in files: turns of an assistant, and a file of any ending that holds them.

In: texts, rows.  Out: messages, a file.  Cost: none.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def says(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The rows as a file of the path's ending; a CSV's lists are JSON text."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(r) for r in rows]), path)
    elif path.suffix == ".csv":
        cells = [
            {k: v if isinstance(v, str | int | float) else json.dumps(v) for k, v in r.items() if v is not None} for r in rows
        ]
        with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as out:
            writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(cells)
    elif path.suffix == ".json":
        path.write_text(json.dumps(list(rows)), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
