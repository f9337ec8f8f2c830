"""The protocols of other programs' clients: a module for each family, with pure functions from its bodies to its replies.

`ROUTERS` are those of all families; `BESIDE_VLLM` those for a port on which vLLM answers its own protocol itself, and with it the
paths that two families share.
"""

from armorm.serving.wire import llama_factory, openrlhf, sglang, shared, slime, tei, vllm

BESIDE_VLLM = tuple(family.router for family in (openrlhf, slime, llama_factory, sglang, tei))
ROUTERS = (*BESIDE_VLLM, vllm.router, shared.router)
