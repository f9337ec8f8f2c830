"""The attacks that a run, a file and a model are to stand, repeated for as many minutes as there are: `python -m tests.torture`."""
