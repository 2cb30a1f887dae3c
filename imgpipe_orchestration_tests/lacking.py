"""What a test needs and the machine may not have: it costs the test, and on CI it is a failure."""

import os
from typing import NoReturn

import pytest


def lacking(what: str, remedy: str) -> NoReturn:
    """Skip the test, or on CI (`CI` set to anything) fail it."""
    message = f"{what} is not here: {remedy}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
