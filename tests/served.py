"""`armorm serve` in a process of its own, and clients for it.

In: a model's folder, options.  Out: `Running`: its address, its log, its end.  Cost: a start of some seconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUN = "from armorm.cli import main; import sys; sys.argv = ['armorm', *sys.argv[1:]]; main()"


@dataclass
class Running:
    """A server that runs: where it is reached, and what it has logged so far."""

    process: subprocess.Popen[str]
    url: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)
    reading: threading.Event = field(default_factory=threading.Event)
    """Cleared, nobody reads the log any further."""
    reader: threading.Thread | None = None

    def end(self, kind: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the exit code and, where the log is read, for its last line."""
        self.process.send_signal(kind)
        code = self.process.wait(timeout=300)
        if self.reader is not None and self.reading.is_set():
            self.reader.join(timeout=300)
        return code


@contextmanager
def serving(model: Path, *words: object) -> Iterator[Running]:
    """A server on a free port of this machine's own, from its first line of log to its end."""
    command = [sys.executable, "-c", RUN, "serve", str(model), "--port", "0", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    running, begun = Running(process), threading.Event()
    running.reading.set()

    def read() -> None:
        for line in process.stderr or ():
            running.reading.wait()
            running.log.append(json.loads(line) if line.startswith("{") else {"event": "text", "text": line})
            if running.log[-1]["event"] == "serving":
                running.url = running.log[-1]["url"]
                begun.set()
        begun.set()

    reader = running.reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert begun.wait(timeout=900), "the server did not begin"
        assert running.url, running.log
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        running.reading.set()
        reader.join(timeout=10)
        if process.stderr is not None:
            process.stderr.close()
