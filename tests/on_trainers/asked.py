"""What the tests ask: one question, as messages and in the tiny tokenizer's template, and the tiny model's objectives.

In: nothing.  Out: constants.  Cost: nothing.
"""

from __future__ import annotations

ASKED = [{"role": "user", "content": "How are you?"}]
TEMPLATED = "<|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\n"
OBJECTIVES = ["helpful", "safe", "verbosity"]
