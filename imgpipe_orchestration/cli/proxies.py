"""Excludes loopback from the proxies that the environment names, so that the stack's parts are reached directly."""

from __future__ import annotations

import os
from urllib.request import getproxies_environment, proxy_bypass

from imgpipe_orchestration.devstack.ports import LOOPBACK

VARIABLES = ("no_proxy", "NO_PROXY")
"""Some clients read the one, some the other."""


def exempt_loopback() -> None:
    """Set VARIABLES, for this process and its children, unless loopback is excluded already."""
    proxies = getproxies_environment()
    exempt = proxies.pop("no", "")
    if proxies and not proxy_bypass(LOOPBACK):
        for name in VARIABLES:
            os.environ[name] = ",".join(filter(None, (os.environ.get(name, exempt), LOOPBACK, "localhost")))
