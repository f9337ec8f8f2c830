"""A chat template tried on a question and an answer of one letter, in a process of little memory and time.

In: a template and its variables, as JSON on stdin; this file is run by itself.  Out: an exit code: 0 where the template ended,
in a text or an error, another where memory ran out.  Cost: a process that imports jinja alone, a tenth of a second.

What a template computes can't be told by reading it: a loop of sixty doublings of a text is one line. No thread that renders one
can be stopped, and no part of a process has a limit of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 1 << 30
"""Bytes that the process may have, where the system can bound it (Linux can); about a tenth is its own."""
SECONDS = 10.0
_SHORT = 3
"""The exit code that says that memory ran out."""


class Generation(Extension):
    """transformers' own tag, which marks what an assistant says."""

    tags = {"generation"}  # noqa: RUF012 - jinja's way

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=64)
def trial_fault(template: str, variables: tuple[tuple[str, str], ...] = ()) -> str | None:
    """What is wrong with the memory or time that a template takes for two words; None where it ends within both.

    `variables`: names of special tokens, each with its text. A machine on which no process can be started finds nothing.
    """
    if not sys.executable:  # Python within another program
        return None
    given = json.dumps({"template": template, "variables": dict(variables)})
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # packages where this process finds them
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__], input=given.encode(), env=found, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it takes more than {SECONDS:.0f} s for two words"
    except OSError:
        return None
    ended = done.returncode == _SHORT or done.returncode < 0  # by a signal, in C code that found no memory
    return f"it takes more than {MEMORY >> 20} MiB for two words" if ended else None


def _limit_memory() -> None:
    with suppress(ImportError, AttributeError, ValueError, OSError):  # Windows has no such limit, and macOS refuses it
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most), most))


def _refuse(message: str) -> None:
    raise ValueError(message)


def _try(template: str, variables: dict[str, Any]) -> None:
    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    sandbox.filters["tojson"] = lambda value, **_options: json.dumps(value, default=str)
    sandbox.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    for parted in (False, True):
        for asked in (False, True):
            try:
                tried = sandbox.from_string(template)
                tried.render(messages=_turns(parted), tools=None, documents=None, add_generation_prompt=asked, **variables)
            except MemoryError:
                raise
            except Exception:
                continue  # the template's own affair, found where it is rendered


def _turns(parted: bool) -> list[dict[str, Any]]:
    texts = {"user": "a", "assistant": "b"}
    return [{"role": role, "content": [{"type": "text", "text": text}] if parted else text} for role, text in texts.items()]


def _main() -> None:
    _limit_memory()
    given = json.load(sys.stdin)
    try:
        _try(**given)
    except MemoryError:
        sys.exit(_SHORT)


if __name__ == "__main__":
    _main()
