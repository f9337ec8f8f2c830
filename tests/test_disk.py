"""Files are whole or not there, whoever else writes the same one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from armorm.disk import write_sealed, writing


def test_threads_that_write_one_file_at_once_leave_it_whole(tmp_path: Path):
    place, together = tmp_path / "facts.json", Barrier(4)

    def write(n: int) -> None:
        with writing(place) as beside:
            beside.write_text(f"{n}" * 1000)
            together.wait()  # all are writing now

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert place.read_text() in {f"{n}" * 1000 for n in range(4)}
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]


def test_what_breaks_while_it_is_written_leaves_what_was_there(tmp_path: Path):
    place = tmp_path / "facts.json"
    write_sealed(place, {"format": 1, "is": "whole"})
    before = place.read_bytes()
    try:
        with writing(place) as beside:
            beside.write_text("half")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert place.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]
