"""Benchmarks as data: where they lie, how their records become items, their sections and weights; `registry` lists them."""
