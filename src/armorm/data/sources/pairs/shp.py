"""SHP: Reddit posts with two comments each, the one with more votes preferred.

In: records of stanfordnlp/SHP.  Out: at most one pair per record.  Cost: one pass; a count per post is held.

The prompt is the post (`history`), the answers are `human_ref_A` and `human_ref_B`; `labels` is 1 where A is preferred and 0
where B is. Two filters, those of the set's own card and of the public reward models: the preferred comment's score is more than
twice the other's, and a post gives at most five pairs, the first five in the files' order that pass the first filter (counted
before the texts are checked). The ratio is `score_ratio`; where that is missing it is computed from the scores (note
`ratio-from-scores`).

Left out: `ratio-too-low`, `over-post-cap`, `tie` (equal scores), and `label-against-scores` (the comment that the label prefers
has the lower score). Faults: a `labels` that is neither 0 nor 1 (`unknown-label`), and no ratio to be had (`no-score-ratio`).

The hub has one folder per subreddit (18), each with train, validation and test; without a `data_dir` all are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from armorm.data.cells import number
from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_pairs
from armorm.data.sources.source import bad, flat, skip, text_fault

LEAST_RATIO = 2.0
PAIRS_PER_POST = 5


def unfold(records: Iterable[Found]) -> Iterator[Found]:
    """One pair, one fault or one reason per record."""
    pairs_of: Counter[str] = Counter()
    for record in records:
        pair = _pair(record) if isinstance(record, Record) else record
        if isinstance(record, Record) and isinstance(pair, Record):
            post = record.values["post_id"]
            pairs_of[post] += 1
            if pairs_of[post] > PAIRS_PER_POST:
                pair = skip(record, "over-post-cap")
        yield pair


def _pair(record: Record) -> Found:
    values = record.values
    if fault := text_fault(record, "post_id", "history", "human_ref_A", "human_ref_B"):
        return fault
    label = number(values.get("labels"))
    if label not in (0, 1):
        return bad(record, "unknown-label", "give 1 (A is preferred) or 0 (B is preferred) in the field 'labels'")
    better, worse = ("A", "B") if label == 1 else ("B", "A")
    high, low = number(values.get(f"score_{better}")), number(values.get(f"score_{worse}"))
    if high is not None and low is not None and high <= low:
        return skip(record, "tie" if high == low else "label-against-scores")
    ratio = number(values.get("score_ratio"))
    notes: tuple[str, ...] = ()
    if ratio is None:
        if high is None or low is None or low <= 0:
            return bad(record, "no-score-ratio", "fill in the field 'score_ratio', or 'score_A' and 'score_B' above 0")
        ratio, notes = high / low, ("ratio-from-scores",)
    if ratio <= LEAST_RATIO:
        return skip(record, "ratio-too-low")
    chosen, rejected = values[f"human_ref_{better}"], values[f"human_ref_{worse}"]
    return flat(record, notes=notes, prompt=values["history"], chosen=chosen, rejected=rejected)


SOURCES = (published_pairs("shp", unfold),)
