"""Requests are counted by address and status, and by no more addresses than there are."""

from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from glmasr.serving.metrics import Metrics


def test_numbers_are_those_of_the_service_and_of_the_requests():
    service = SimpleNamespace(audio_seconds=2.5, in_flight=3, streams={1, 2}, held_bytes=7, is_draining=True)
    metrics = Metrics(service)
    for path in ("/health", "/wp-admin", "/health", "/.env"):
        with metrics.timed(path, SimpleNamespace(status=200)):
            pass
    with pytest.raises(ZeroDivisionError), metrics.timed("/health", SimpleNamespace(status=0)):
        raise ZeroDivisionError
    families = text_string_to_metric_families(metrics.text().decode())
    found = {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}
    assert found["glmasr_requests_total", "/health", "200"] == 2
    assert found["glmasr_requests_total", "/health", "500"] == 1
    assert found["glmasr_requests_total", "other", "200"] == 2
    assert found["glmasr_request_seconds_count", "other"] == 2
    assert found["glmasr_audio_seconds_total",] == 2.5 and found["glmasr_recordings_in_flight",] == 3
    assert found["glmasr_live_streams",] == 2 and found["glmasr_held_bytes",] == 7 and found["glmasr_draining",] == 1
    assert not any("wp-admin" in key for key in found)
