"""The command line: parse, call one library function, print. Results on stdout, everything else on stderr."""

from __future__ import annotations


def main() -> None:
    """Run the command line. A signal ends it quietly while its modules are still being imported, too."""
    try:
        from armorm.cli.app import main as run
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    run()


__all__ = ["main"]
