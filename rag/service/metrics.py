"""Prometheus metrics of the service. With several workers the files of PROMETHEUS_MULTIPROC_DIR add them up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from rag.catalogue.catalogue import Catalogue

# Seconds: searches take milliseconds, language models seconds.
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    def __init__(self, catalogue: Catalogue):
        self._sizes = _Sizes(catalogue)
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "rag_requests", "Requests answered", ("route", "tenant", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "rag_request_seconds", "Time of a whole request", ("route",), buckets=_BUCKETS, registry=self._registry
        )
        self._stages = Histogram(
            "rag_stage_seconds",
            "Time of a stage: models, search and rerank of a retrieval; answer; read and index of a document",
            ("stage",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._channels = Counter(
            "rag_channel", "Retrievals by what became of each channel", ("channel", "state"), registry=self._registry
        )

        self._swaps = Counter(
            "rag_reranker_swap", "Rerankers that tenants were given", ("tenant", "outcome"), registry=self._registry
        )

    def count_swap(self, tenant: str, outcome: str) -> None:
        """Count a swap of a tenant's reranker: swapped or refused."""
        self._swaps.labels(tenant, outcome).inc()

    def count_request(self, route: str, tenant: str, status: int, seconds: float) -> None:
        """Count a request. `route` is its template, `tenant` one that exists, or "": so that no caller can make
        series."""
        self._requests.labels(route, tenant, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def observe_stage(self, stage: str, seconds: float) -> None:
        self._stages.labels(stage).observe(seconds)

    def count_channels(self, states: Mapping[str, str]) -> None:
        for channel, state in states.items():
            self._channels.labels(channel, _kind(state)).inc()

    def render(self) -> bytes:
        """Render the metrics in Prometheus's text format."""
        registry = CollectorRegistry()
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(self._registry)
        registry.register(self._sizes)
        return generate_latest(registry)


class _Sizes(Collector):
    """Read at each scrape: the catalogue knows."""

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue

    def collect(self) -> Iterable[GaugeMetricFamily]:
        labels = ("tenant", "kb_name")
        documents = GaugeMetricFamily("rag_documents", "Documents stored", labels=labels)
        passages = GaugeMetricFamily("rag_passages", "Passages stored", labels=labels)
        questions = GaugeMetricFamily("rag_questions", "Questions that are keys of passages", labels=labels)
        for kb in self._catalogue.knowledge_bases():
            name = (kb.tenant_id, kb.name)
            documents.add_metric(name, kb.documents)
            passages.add_metric(name, kb.passages)
            questions.add_metric(name, kb.questions)
        return documents, passages, questions


def _kind(state: str) -> str:
    """Return the state without its reason, and time-outs as a kind of their own."""
    kind, _, reason = state.partition(":")
    return "timeout" if "no answer within" in reason else kind
