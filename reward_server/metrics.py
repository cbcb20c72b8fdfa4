"""What Prometheus may ask of a server: its own requests, and the queue all servers share.

The queue's figures are read from the database at every scrape, so that any server can be asked and
a restart forgets nothing; requests are counted by the process that answered them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reward_server.store.progress import QueueFigures

BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOTALS: Final = {
    "requests": "Score requests accepted by all servers",
    "items": "Images accepted by all servers",
    "bytes": "Bytes of accepted request bodies",
}
METHODS: Final = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Methods that are counted by name: whoever asks may make up others, and each would be kept."""
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """One process's counters; ``render`` adds the queue's."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "reward_http_requests",
            "Requests this process has answered",
            ("method", "route", "code"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "reward_http_request_seconds",
            "Time until the answer was sent, long-polls included",
            ("route",),
            registry=self._registry,
            buckets=BUCKETS_S,
        )

        self._webhooks = Counter(
            "reward_webhook_attempts",
            "Webhooks this process has sent; given_up ones are lost",
            ("webhook", "outcome"),
            registry=self._registry,
        )

    def answered(self, method: str, route: str, code: int, seconds: float) -> None:
        """Count one answered request; ``route`` is the template, not the path."""
        known = method if method in METHODS else "other"
        self._requests.labels(known, route, str(code)).inc()
        self._seconds.labels(route).observe(seconds)

    def webhook(self, name: str, outcome: str) -> None:
        """Count one attempt at a webhook: delivered, failed (it is tried again) or given_up."""
        self._webhooks.labels(name, outcome).inc()

    def render(self, queue: QueueFigures, scorers: int) -> bytes:
        """Everything in Prometheus' text format, with ``scorers`` processes of this server."""
        shared = CollectorRegistry()
        shared.register(_Queue(queue, scorers))
        return generate_latest(self._registry) + generate_latest(shared)


class _Queue(Collector):
    def __init__(self, queue: QueueFigures, scorers: int) -> None:
        self._queue = queue
        self._scorers = scorers

    def collect(self) -> Iterator[Metric]:
        for name, text in TOTALS.items():
            total = CounterMetricFamily(f"reward_accepted_{name}", text, labels=["reward"])
            for reward, traffic in self._queue.accepted.items():
                total.add_metric([reward], getattr(traffic, name))
            yield total
        waiting = GaugeMetricFamily("reward_queue_items", "Items to be answered", labels=["reward"])
        oldest = GaugeMetricFamily(
            "reward_queue_oldest_seconds",
            "Age of the oldest of them",
            labels=["reward"],
        )
        for reward, (items, age_s) in self._queue.waiting.items():
            waiting.add_metric([reward], items)
            oldest.add_metric([reward], age_s)
        messages = GaugeMetricFamily("reward_webhook_waiting", "On their way", labels=["webhook"])
        since = GaugeMetricFamily(
            "reward_webhook_oldest_seconds", "Age of the oldest of them", labels=["webhook"]
        )
        for webhook, (n, age_s) in self._queue.webhooks.items():
            messages.add_metric([webhook], n)
            since.add_metric([webhook], age_s)
        yield from (messages, since)
        leases = GaugeMetricFamily("reward_leases", "Live leases", labels=["kind"])
        for kind, n in self._queue.leased.items():
            leases.add_metric([kind], n)
        yield from (waiting, oldest, leases)
        name = "reward_scorer_processes"
        yield GaugeMetricFamily(name, "Scorer processes of this server", value=self._scorers)
