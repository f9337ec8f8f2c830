"""How commands print: tables for people, JSON for machines.

In: what a command found.  Out: stdout.  Cost: none (rich is imported when something is printed).
"""

from __future__ import annotations

import json
import sys
from typing import Any


def printed(value: Any, *, json_: bool, markup: bool = True) -> None:
    """JSON, or a table or a list of them; 140 columns where stdout is no terminal. `markup` reads rich's tags in texts."""
    if json_:
        print(json.dumps(value, ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140)
    for part in value if isinstance(value, list) else [value]:
        console.print(part, markup=markup)
