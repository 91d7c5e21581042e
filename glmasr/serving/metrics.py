"""What happens to a service in, numbers for Prometheus out; none of them says who spoke, or what."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from glmasr.serving.service import Service

PATHS = ("/v1/audio/transcriptions", "/v1/models", "/health", "/metrics")
"""Others are counted as one: a label for each address that somebody tries would fill the memory."""
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Answered(Protocol):
    """What knows the status of an answer, 0 before there is one."""

    status: int


class Metrics:
    """Numbers of one service, in a registry of its own."""

    def __init__(self, service: Service):
        self.service = service
        self.registry = CollectorRegistry()
        labels = ["path", "status"]
        self.requests = Counter("glmasr_requests", "HTTP requests answered", labels, registry=self.registry)
        self.seconds = Histogram(
            "glmasr_request_seconds", "Time to answer", ["path"], buckets=SECONDS, registry=self.registry
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What the service itself counts, as Prometheus asks for it."""
        service = self.service
        yield CounterMetricFamily("glmasr_audio_seconds", "Audio transcribed", value=service.audio_seconds)
        yield GaugeMetricFamily("glmasr_recordings_in_flight", "Recordings read and waited for", service.in_flight)
        yield GaugeMetricFamily("glmasr_live_streams", "Live streams", len(service.streams))
        yield GaugeMetricFamily("glmasr_held_bytes", "Bytes of requests that are being answered", service.held_bytes)
        yield GaugeMetricFamily("glmasr_draining", "1 when nothing new is taken", service.is_draining)

    @contextmanager
    def timed(self, path: str, answer: Answered) -> Iterator[None]:
        """Count a request, and how long it takes to answer."""
        place, start = path if path in PATHS else "other", time.monotonic()
        try:
            yield
        finally:
            self.seconds.labels(place).observe(time.monotonic() - start)
            self.requests.labels(place, str(answer.status or 500)).inc()

    def text(self) -> bytes:
        """All of it, in Prometheus' format."""
        return generate_latest(self.registry)
