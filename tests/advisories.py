"""The pinned packages against the published advisories: `python -m tests.advisories`, a part of `make check`.

In: constraints.txt.  Out: exit code 0, or 1 with what was found; where the advisories can't be reached, a note.  Cost: a request
for each package.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parents[1] / "constraints.txt"
SECONDS = 300


def audit(pins: Path) -> tuple[int, str]:
    """What pip-audit says of the pins: an exit code, and text for people."""
    words = [sys.executable, "-m", "pip_audit", "-r", str(pins), "--no-deps", "--disable-pip", "--format", "json"]
    try:
        found = subprocess.run(
            [*words, "--progress-spinner", "off"], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return 0, f"note: the advisories did not answer within {SECONDS} s; the audit was passed over"
    return judged(found.stdout, found.stderr)


def judged(out: str, err: str) -> tuple[int, str]:
    """The verdict on pip-audit's output: findings fail, advisories that can't be reached do not, anything else does."""
    try:
        packages = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (err.strip().splitlines() or ["nothing was said"])[-1]
        unreachable = any(
            word in err for word in ("ConnectionError", "ServiceError", "Max retries", "timed out", "HTTPError", "resolve")
        )
        return (0, f"note: the advisories can't be reached; the audit was passed over ({last})") if unreachable else (1, last)
    weak = [f"{p['name']} {p['version']}: {', '.join(v['id'] for v in p['vulns'])}" for p in packages if p.get("vulns")]
    skipped = [p["name"] for p in packages if "skip_reason" in p]
    if not weak and len(skipped) == len(packages):
        return 0, "note: the advisories know none of the packages here; the audit was passed over"
    passed = f"{len(packages) - len(skipped)} packages without a known weakness"
    return (1, "\n".join(weak)) if weak else (0, passed + (f"; not looked up: {', '.join(skipped)}" if skipped else ""))


if __name__ == "__main__":
    code, said = audit(PINS)
    print(said)
    sys.exit(code)
