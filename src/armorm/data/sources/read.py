"""A named source → its rows, streamed.

In: a source, where its files are.  Out: a `Stream` of rated responses or preference pairs.  Cost: one pass.
"""

from __future__ import annotations

from collections.abc import Callable

from armorm.data.reading import Stream, stream_pairs, stream_ratings
from armorm.data.rows import PreferencePair, RatedResponse
from armorm.data.sources.place import place_records
from armorm.data.sources.source import PairSource, RatingSource
from armorm.objectives import Objectives

OnFaultLine = Callable[[str], None]


def source_ratings(
    source: RatingSource,
    *,
    path: str | None = None,
    objectives: Objectives | None = None,
    name: str = "",
    on_fault_line: OnFaultLine | None = None,
) -> Stream[RatedResponse]:
    """The set's rated responses; `path`: a local copy of the hub's files; `objectives`: those to read (default: its own).

    Raises DataError when the files can't be had.
    """
    wanted = Objectives(source.objectives) if objectives is None else objectives
    own = {o.name for o in source.objectives}
    return stream_ratings(
        source.unfold(place_records(source.place, path)),
        source=name or source.name,
        objectives=Objectives([o for o in wanted if o.name in own]),
        where=path or source.place.hub or source.title,
        repeats=source.repeats,
        on_fault_line=on_fault_line,
    )


def source_pairs(
    source: PairSource, *, path: str | None = None, name: str = "", on_fault_line: OnFaultLine | None = None
) -> Stream[PreferencePair]:
    """The set's preference pairs; `path`: a local copy of the hub's files. Raises DataError when the files can't be had."""
    return stream_pairs(
        source.unfold(place_records(source.place, path)),
        source=name or source.name,
        where=path or source.place.hub or source.title,
        repeats=source.repeats,
        on_fault_line=on_fault_line,
    )
