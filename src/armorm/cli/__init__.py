"""The command line: parse, call one library function, print. Results on stdout, everything else on stderr."""

from armorm.cli.app import main

__all__ = ["main"]
