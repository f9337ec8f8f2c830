"""A chat template for vLLM's `/score` and `/rerank`, which show a template a "query" and a "document" in place of turns.

In: a model folder or hub id.
Out: its own template, which reads those two as a question and its answer, and anything else as before.

Use: `python -m armorm.vllm.score_template MODEL > score.jinja`, then
`vllm serve MODEL --runner pooling --chat-template score.jinja`.
"""

from __future__ import annotations

import sys
from typing import Any

from armorm.errors import ArmormError, BackboneError
from armorm.rendering import bos_of
from armorm.vllm.heads import load_heads

AS_TURNS = (
    "{%- if messages[0]['role'] == 'query' -%}{NO_BOS}"
    "{%- set messages = [{'role': 'user', 'content': messages[0]['content']}, "
    "{'role': 'assistant', 'content': messages[1]['content']}] -%}{%- endif -%}"
)
NO_BOS = "{%- set bos_token = '' -%}"
"""vLLM lets the tokenizer add its own token in front of such a text."""


def score_template(tokenizer: Any) -> str:
    """The template. Raises BackboneError for a tokenizer without one."""
    if not isinstance(own := getattr(tokenizer, "chat_template", None), str):
        raise BackboneError("the model's tokenizer has no chat template: add it to its folder")
    return AS_TURNS.replace("{NO_BOS}", NO_BOS if bos_of(tokenizer) else "") + own


def main(arguments: list[str]) -> int:
    """Print it; exit code 2 where it can't be made."""
    try:
        (name,) = arguments
        sys.stdout.write(score_template(load_heads(name).tokenizer))
    except ValueError:
        sys.stderr.write("usage: python -m armorm.vllm.score_template MODEL\n")
        return 2
    except ArmormError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
