"""Prompts that may ask for something harmful: those that any row says something of about safety.

In: rows' outlines, by source.  Out: their groups.  Cost: one pass that reads no texts.

Objectives, sources, sections and subsets speak of safety by their names. That is crude on purpose: to leave a harmless prompt out
costs little, to teach that a harmful one is to be answered would be wrong.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt64

from armorm.data.outlines import Outline
from armorm.data.splits import group_code

_SAFETY = re.compile(
    r"safe|harm|toxi|refus|jailbreak|jbb|red.?team|xstest|do.?not.?answer|gptfuzz|advbench|abus|moderat|"
    r"danger|offens|illegal|crim",
    re.IGNORECASE,
)


def speaks_of_safety(name: str) -> bool:
    """Whether a source, section, subset or objective is about safety by its name."""
    return _SAFETY.search(name) is not None


def safety_prompts(source: str, rows: Iterable[Outline]) -> UInt64[np.ndarray, " g"]:
    """The groups of a source's prompts that are rated on safety or stand in a section about it; of such a source, of all."""
    whole, found = speaks_of_safety(source), array("Q")
    for row in rows:
        if whole or any(map(speaks_of_safety, (row.section, row.subset, *row.ratings))):
            found.append(group_code(row.group))
    return np.unique(np.array(found, np.uint64))
