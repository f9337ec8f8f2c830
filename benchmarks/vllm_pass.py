"""vLLM's pooling runner over token ids, by the python of an environment that has vLLM; nothing of ours is imported.

    PYTHON vllm_pass.py FOLDER IDS.json OUT.json TIMES

In: a decoder's folder; lists of token ids by load.  Out: seconds of each run, by load, with prefix caching on and off.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

CPUS = os.cpu_count() or 1
os.environ.update(
    VLLM_CPU_KVCACHE_SPACE="2", HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", VLLM_CPU_OMP_THREADS_BIND=f"0-{CPUS - 1}"
)


def main(folder: str, ids: str, out: str, times: int, tokens: int) -> None:
    from vllm import LLM
    from vllm.inputs import TokensPrompt

    loads = json.loads(Path(ids).read_text())
    found: dict[str, dict[str, list[float]]] = {}
    for caching in (False, True):
        llm = LLM(
            folder,
            runner="pooling",
            dtype="bfloat16",
            max_model_len=2048,
            max_num_batched_tokens=tokens,
            enable_prefix_caching=caching,
            disable_log_stats=True,
        )
        prompts = {load: [TokensPrompt(prompt_token_ids=row) for row in rows] for load, rows in loads.items()}
        for load, rows in prompts.items():
            seconds = []
            for run in range(times + 1):  # the first warms up
                llm.reset_prefix_cache()
                start = time.perf_counter()
                llm.encode(rows[:8] if run == 0 else rows, pooling_task="embed", use_tqdm=False)
                seconds.append(time.perf_counter() - start)
            found.setdefault(load, {})["on" if caching else "off"] = seconds[1:]
        del llm
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))
