"""PKU-SafeRLHF-30K: two answers to a prompt that invites harm, judged apart for safety and for quality.

In: records of PKU-Alignment/PKU-SafeRLHF-30K.  Out: one pair per record.  Cost: one pass.

`pku-safer` prefers the answer that `safer_response_id` names, `pku-better` the one of `better_response_id`. The two disagree at
times (note `safer-and-better-differ`): an answer may be more helpful and less safe. Ids written as text are read (note
`id-as-text`); anything but 0 and 1 is a fault (`unknown-label`). Both answers may be safe, or both unsafe: such pairs stay. For
`pku-safer` a record that prefers an answer marked unsafe to one marked safe is left out (`label-against-flags`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_pairs
from armorm.data.sources.source import Unfold, bad, each, flat, skip

SAFER, BETTER = "safer_response_id", "better_response_id"


def _unfold(field: str) -> Unfold:
    def pair(record: Record) -> Iterator[Found]:
        values = record.values
        ids = {name: _id(values.get(name)) for name in (SAFER, BETTER)}
        preferred = ids[field]
        if preferred is None:
            yield bad(record, "unknown-label", f"give 0 or 1, the preferred answer's number, in the field {field!r}")
        elif field == SAFER and _is_safe(values, preferred) is False and _is_safe(values, 1 - preferred) is True:
            yield skip(record, "label-against-flags")
        else:
            as_text = ("id-as-text",) if isinstance(values[field], str) else ()
            differ = ("safer-and-better-differ",) if {*ids.values()} == {0, 1} else ()
            chosen, rejected = values[f"response_{preferred}"], values[f"response_{1 - preferred}"]
            yield flat(record, notes=as_text + differ, prompt=values["prompt"], chosen=chosen, rejected=rejected)

    return each(pair, "prompt", "response_0", "response_1")


def _id(value: Any) -> int | None:
    if isinstance(value, str):
        value = {"0": 0, "1": 1}.get(value.strip())
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value in (0, 1) else None


def _is_safe(values: dict[str, Any], response: int) -> object:
    return values.get(f"is_response_{response}_safe")


SOURCES = (published_pairs("pku-safer", _unfold(SAFER)), published_pairs("pku-better", _unfold(BETTER)))
