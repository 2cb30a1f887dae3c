"""Reading and beginning traces; and what they cost where nobody collects them."""

import subprocess
import sys

import pytest

from imgpipe_orchestration.telemetry import tracing

OURS = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN = f"00-{OURS}-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (GIVEN, True),
        (f"01-{OURS}-00f067aa0ba902b7-01-what-later-versions-add", True),
        (f"00-{OURS}-00f067aa0ba902b7-01-more", False),
        (f"ff-{OURS}-00f067aa0ba902b7-01", False),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
        (f"00-{OURS}-{'0' * 16}-01", False),
        (GIVEN.upper(), False),
        ("", False),
        (None, False),
        ("00-x\r\nSet-Cookie: a=b", False),
    ],
)
def test_a_traceparent_is_taken_only_when_it_is_one(header: str | None, known: bool) -> None:
    assert tracing.parse(header) == (GIVEN if known else "")
    assert tracing.id_of(header or "") == (OURS if known else "")


WITHOUT_COLLECTOR = """
import os
import sys
import imgpipe_orchestration.definitions
from imgpipe_orchestration.telemetry import tracing

os.environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)
tracing.configure()
with tracing.span("a"):
    outer = tracing.current()
    with tracing.span("b"):
        assert tracing.id_of(outer) == tracing.current_id() and tracing.current() != outer
assert not any(name.startswith("opentelemetry.sdk") for name in sys.modules)
"""


def test_without_a_collector_the_sdk_is_not_loaded() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_COLLECTOR], check=True)
