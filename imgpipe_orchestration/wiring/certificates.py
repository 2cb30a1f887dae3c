"""Has every library trust a private certificate authority, whichever variable names it."""

import os

CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Files of a private authority: OpenSSL (pymongo, httpx) and obstore read the first, requests and boto3 the
others. With only some of them set, one half of a program trusts a server, and the other does not."""


def share_certificates() -> None:
    """Set those that are not set to the first one that is. Before the first connection: libraries read theirs once."""
    named = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
    if named is not None:
        for name in CERTIFICATES:
            os.environ[name] = os.environ.get(name) or named
