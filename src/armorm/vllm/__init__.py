"""vLLM serves reward models: a decoder on vLLM's kernels, heads in its pooler, own routes beside its own."""
