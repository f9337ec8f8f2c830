"""What a server counts, for Prometheus.

In: requests, batches, refusals as they happen.  Out: the text of /metrics.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TOKENS = (64, 256, 1024, 2048, 4096, 8192, 16384, 65536)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """One server's counters, in a registry of their own. Labels come from the program alone, so their number is bounded."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        registry = self.registry
        self.requests = Counter("armorm_requests", "Requests answered.", ("route", "status"), registry=registry)
        self.seconds = Histogram("armorm_request_seconds", "From head to answer.", ("route",), buckets=SECONDS, registry=registry)
        self.refusals = Counter("armorm_refusals", "Requests refused, by reason.", ("reason",), registry=registry)
        self.inside = Gauge("armorm_requests_inside", "Requests that are read or answered now.", registry=registry)
        self.queue_tokens = Gauge("armorm_queue_tokens", "Tokens that wait for the decoder.", registry=registry)
        self.queue_rows = Gauge("armorm_queue_conversations", "Conversations that wait for the decoder.", registry=registry)
        self.tokens = Counter("armorm_scored_tokens", "Tokens that were read; a shared prompt once.", registry=registry)
        self.scored = Counter("armorm_scored_conversations", "Conversations that were scored.", registry=registry)
        self.batch_tokens = Histogram("armorm_batch_tokens", "Tokens of a batch.", buckets=TOKENS, registry=registry)
        self.batch_rows = Histogram("armorm_batch_conversations", "Conversations of a batch.", buckets=ROWS, registry=registry)
        self.batch_seconds = Histogram("armorm_batch_seconds", "Seconds of a batch.", buckets=SECONDS, registry=registry)

    def batch(self, rows: int, tokens: int, seconds: float) -> None:
        """A batch went through the decoder."""
        self.tokens.inc(tokens)
        self.scored.inc(rows)
        self.batch_tokens.observe(tokens)
        self.batch_rows.observe(rows)
        self.batch_seconds.observe(seconds)

    def watch_queue(self, tokens: Callable[[], float], rows: Callable[[], float]) -> None:
        """Read the queue's length whenever the metrics are asked for."""
        self.queue_tokens.set_function(tokens)
        self.queue_rows.set_function(rows)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
