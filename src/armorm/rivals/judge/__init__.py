"""A language model as judge: asked which of two answers is better, or for a rating of one."""
