"""Certificates of an authority of one's own: one variable for all libraries that speak TLS.

Each has a variable of its own for a file of authorities: OpenSSL (pymongo, httpx), and obstore, read SSL_CERT_FILE,
requests REQUESTS_CA_BUNDLE, boto3 AWS_CA_BUNDLE. With only some of them set, one half of a program trusts a server, and
the other does not.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


def share_certificates(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set those that are not set to the first one that is. Before the first connection: libraries read theirs once."""
    named = next((environ[name] for name in VARIABLES if environ.get(name)), None)
    if named is not None:
        for name in VARIABLES:
            environ[name] = environ.get(name) or named
