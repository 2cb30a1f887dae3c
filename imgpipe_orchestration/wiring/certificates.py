"""Has every library trust a private certificate authority, whichever variable names it."""

import os
from collections.abc import MutableMapping

CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Files of a private authority: OpenSSL (pymongo, httpx) and obstore read the first, requests and boto3 the
others. With only some of them set, one half of a program trusts a server, and the other does not."""


def share_certificates(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set those that are not set to the first one that is. Before the first connection: libraries read theirs once."""
    named = next((environ[name] for name in CERTIFICATES if environ.get(name)), None)
    if named is not None:
        for name in CERTIFICATES:
            environ[name] = environ.get(name) or named
