"""Definitions import the clients, so that must stay cheap."""

from __future__ import annotations

import subprocess
import sys

MODULES = (
    "fetch",
    "flowise",
    "google_vision",
    "http",
    "links",
    "main_api",
    "openai",
    "openai_errors",
    "rate_limit",
    "retry",
    "signature",
    "ssrf",
    "usage",
    "vision_analysis",
)
HEAVY = ("openai", "httpx2", "requests", "urllib3", "numpy", "PIL", "starlette", "fastapi")


def test_importing_the_clients_loads_no_heavy_library_and_starts_nothing() -> None:
    imports = "\n".join(f"import imgpipe_orchestration.partners.{module}" for module in MODULES)
    program = f"{imports}\nimport imgpipe_orchestration.billing.ledger\nimport sys, threading\n"
    program += f"print([m for m in {HEAVY!r} if m in sys.modules], threading.active_count())"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[] 1"


def test_after_a_warm_up_openais_answers_are_ready_to_be_read_and_nothing_else_goes_on() -> None:
    program = """
import threading
from openai.types.responses import ParsedResponse
from imgpipe_orchestration.partners.openai_warmup import warm_up
before = ParsedResponse.__pydantic_complete__
warm_up()
print(before, ParsedResponse.__pydantic_complete__, threading.active_count())
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "True", "1"]
