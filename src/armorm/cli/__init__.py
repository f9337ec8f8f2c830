"""The command line: parse, call one library function, print. Results on stdout, everything else on stderr."""

from __future__ import annotations


def main() -> None:
    """Run the command line. A signal ends it quietly while its modules are still being imported, too."""
    try:
        from armorm.cli.app import main as run
    except KeyboardInterrupt:
        eval("0")  # else Python, interrupted in an `exec` of its own, would end by the signal instead of with the code
        raise SystemExit(130) from None
    run()


__all__ = ["main"]
