"""Prometheus metrics of the drop-in."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 5, 10)  # seconds


class Metrics:
    """Labels hold names from the settings and fixed words alone, so that no caller can make series."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._answers = Counter(
            "rewriter_answers",
            "Answers by the arm that was asked, and why the original query was the answer (failure is empty otherwise)",
            ("tenant", "arm", "failure"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "rewriter_answer_seconds",
            "Time from a request's body to its answer",
            ("tenant", "arm"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._cut = Counter(
            "rewriter_cut", "Rewrites that ended at the limit of new tokens", ("tenant", "arm"), registry=self._registry
        )
        self._shadow = Counter(
            "rewriter_shadow", "Shadow calls by outcome", ("tenant", "rewriter", "outcome"), registry=self._registry
        )
        self._interleaved = Counter(
            "rewriter_interleaved", "Retrievals by outcome", ("tenant", "outcome"), registry=self._registry
        )
        self._events = Counter("rewriter_events", "Events reported", ("tenant", "event"), registry=self._registry)
        self._swaps = Counter(
            "rewriter_swap", "Champions that followed another", ("tenant", "outcome"), registry=self._registry
        )

    def count_answer(self, tenant: str, arm: str, failure: str, seconds: float, cut: bool) -> None:
        self._answers.labels(tenant, arm, failure).inc()
        self._seconds.labels(tenant, arm).observe(seconds)
        if cut:
            self._cut.labels(tenant, arm).inc()

    def count_shadow(self, tenant: str, rewriter: str, outcome: str) -> None:
        """`outcome`: answered, dropped (too many under way), or a failure."""
        self._shadow.labels(tenant, rewriter, outcome).inc()

    def count_retrieval(self, tenant: str, outcome: str) -> None:
        """`outcome`: interleaved, single or failed."""
        self._interleaved.labels(tenant, outcome).inc()

    def count_event(self, tenant: str, event: str) -> None:
        self._events.labels(tenant, event).inc()

    def count_swap(self, tenant: str, outcome: str) -> None:
        """`outcome`: swapped or refused."""
        self._swaps.labels(tenant, outcome).inc()

    def watch(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Read these at each scrape."""
        self._registry.register(_Read(read))

    def render(self) -> bytes:
        """Render the metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class _Read(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]):
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()


def backend_metrics(backends: Iterable[tuple[str, str, bool, int]], dropped: int) -> list[Metric]:
    """Return whether each model server is up and how often it was restarted, and the lines that the log has lost.

    Args:
        backends: tenant, rewriter, up, restarts.
    """
    labels = ("tenant", "rewriter")
    up = GaugeMetricFamily("rewriter_backend_up", "Whether the model server answers", labels=labels)
    restarts = CounterMetricFamily("rewriter_backend_restarts", "Deaths of the model server", labels=labels)
    for tenant, rewriter, ready, times in backends:
        up.add_metric((tenant, rewriter), float(ready))
        restarts.add_metric((tenant, rewriter), times)
    lost = CounterMetricFamily("rewriter_log_lines_dropped", "Lines that the outcome log has lost", value=dropped)
    return [up, restarts, lost]
