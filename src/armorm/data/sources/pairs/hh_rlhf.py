"""HH-RLHF: dialogues with two last answers, a crowd worker's choice between them.

In: records of Anthropic/hh-rlhf.  Out: one pair per record.  Cost: one pass.

`chosen` and `rejected` are flat texts, each turn behind a blank line and "Human:" or "Assistant:". Only these two markers part
turns: "Human:" inside a line is text. Turns lose the white space around them. A text that starts with "Human:" without the blank
line is read (note `no-first-blank-line`); one that starts with anything else is `no-transcript`. What then is no dialogue is
counted by the checks that all pairs pass: empty turns (`empty-turn`), a user's two turns (`not-alternating`), a last turn that
is not the assistant's (`no-answer`), contexts that differ (`different-contexts`), equal answers (`chosen-equals-rejected`).

`hh-helpful` reads the three helpful folders, `hh-harmless` is harmless-base, `hh-rlhf` all four. The test files are the `split`
"test". The set's fifth folder, red-team-attempts, has single transcripts with a rating of the attack and no pairs: no split
names it, and given as a file each record is refused as `red-team-attempts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_pairs
from armorm.data.sources.source import bad, each, flat, text_fault
from armorm.data.transcripts import turns_of_transcript

_BARE_START = re.compile(r"(?!\n\n)\s*(Human|Assistant):")


@each
def unfold(record: Record) -> Iterator[Found]:
    """One pair of whole conversations."""
    values = record.values
    if "transcript" in values and "chosen" not in values:
        yield bad(
            record,
            "red-team-attempts",
            "give the files of helpful-base, helpful-online, helpful-rejection-sampled or harmless-base: red-team-attempts "
            "holds single transcripts and no pairs",
        )
        return
    if fault := text_fault(record, "chosen", "rejected"):
        yield fault
        return
    texts = [values["chosen"], values["rejected"]]
    bare = [bool(_BARE_START.match(text)) for text in texts]
    chosen, rejected = (turns_of_transcript(f"\n\n{text.lstrip()}" if b else text) for text, b in zip(texts, bare, strict=True))
    if chosen is None or rejected is None:
        yield bad(record, "no-transcript", "let chosen and rejected start with a blank line and 'Human:'")
    else:
        yield flat(record, notes=("no-first-blank-line",) if any(bare) else (), chosen=chosen, rejected=rejected)


SOURCES = tuple(published_pairs(name, unfold) for name in ("hh-rlhf", "hh-helpful", "hh-harmless"))
