"""Where a result comes from: code, machine, command.

In: nothing.  Out: JSON facts.  Cost: one call of git, where there is one.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from armorm import __version__


def provenance() -> dict[str, Any]:
    """Time (UTC), version, commit of the code (None outside a checkout), machine and command line."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"created": created, "version": __version__, "commit": _commit(), "machine": machine(), "command": command}


def machine() -> str:
    """Processor, cores in use, memory, accelerator."""
    parts = [_processor(), f"{torch.get_num_threads()} threads"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB")
    parts.append(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _commit() -> str | None:
    def git(*words: str) -> str:
        found = subprocess.run(["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True, check=False)
        return found.stdout.strip() if found.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if commit and git("status", "--porcelain", "--untracked-files=no") else "") or None
    except OSError:
        return None
