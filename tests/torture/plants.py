"""Faults put into the package on purpose, so that the tests see that attacks find them.

In: a fault's name.  Out: the package of this process, and of the children forked from now on, changed.  Cost: none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any


def plant(name: str) -> None:
    if name:
        PLANTS[name]()


def _digests() -> None:
    # Nothing on disk is checked against the digest it was written with.
    _everywhere("check_digest", lambda *_given, **_named: None)


def _traceback() -> None:
    def broken(*_given: Any, **_named: Any) -> None:
        raise KeyError("planted")

    _everywhere("answer_rows", broken)


def _hang() -> None:
    _everywhere("answer_rows", lambda *_given, **_named: time.sleep(3600))


def _everywhere(name: str, instead: Callable[..., Any]) -> None:
    found = [m for key, m in sys.modules.items() if key.startswith("armorm") and hasattr(m, name)]
    assert found, f"nothing is called {name}"
    for module in found:
        setattr(module, name, instead)


PLANTS: dict[str, Callable[[], None]] = {"digests": _digests, "traceback": _traceback, "hang": _hang}
