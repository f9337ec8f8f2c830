"""The protocols of other programs' clients: a module for each family, with pure functions from its bodies to its replies.

`ROUTERS` are those of all families; another server may mount some of them.
"""

from armorm.serving.wire import llama_factory, openrlhf, sglang, shared, slime, tei, vllm

ROUTERS = tuple(family.router for family in (openrlhf, slime, llama_factory, vllm, sglang, tei, shared))
