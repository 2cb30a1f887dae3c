"""docs/partners.md says what is true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import requests

from imgpipe_orchestration.devstack.standins.control import Kind
from imgpipe_orchestration_tests.conftest import StandInAccess

PAGE = (Path(__file__).parents[2] / "docs" / "partners.md").read_text()
POSTS = re.findall(r"curl -X POST \$URL(\S+) -d '([^']+)'", PAGE)


def test_every_kind_of_fault_is_documented() -> None:
    documented = set(re.findall(r"`(\w+)`", PAGE))
    assert [kind.value for kind in Kind if kind.value not in documented] == []


@pytest.mark.parametrize(("path", "body"), POSTS)
def test_the_commands_work_as_written(path: str, body: str, standins: StandInAccess) -> None:
    reply = requests.post(standins.url + path, json=json.loads(body), timeout=10)
    assert reply.status_code in (200, 201), reply.text


def test_there_are_commands_to_try() -> None:
    assert len(POSTS) >= 5
