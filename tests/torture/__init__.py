"""The attacks that a run, a file and a model are to stand, for as many minutes as there are: `python -m tests.torture`."""

import os

ONE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS")
if __name__ == "tests.torture":  # the command; tests that borrow from here keep their surroundings
    for name, value in {**dict.fromkeys(ONE, "1"), "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}.items():
        os.environ.setdefault(name, value)
