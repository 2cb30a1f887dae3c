"""Clients on the stand-ins, with a short temper."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from imgpipe_orchestration.partners.flowise import Flowise
from imgpipe_orchestration.partners.google_vision import GoogleVision
from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration_tests.conftest import StandInAccess

QUICK = RetryPolicy(attempts=2, first_wait=0.02, longest_wait=0.05, budget=10)
"""One retry, hardly any wait."""


@pytest.fixture
def openai(standins: StandInAccess, request: pytest.FixtureRequest) -> Iterator[OpenAIClient]:
    # The test's name as key: the rate gate belongs to the key, and one test's 429 must not hold back the next.
    client = OpenAIClient(request.node.nodeid, base_url=standins.openai_url, timeout=5, policy=QUICK)
    yield client
    client.close()


@pytest.fixture
def google(standins: StandInAccess) -> GoogleVision:
    return GoogleVision(standins.google_url, "key", timeout=5, policy=QUICK)


@pytest.fixture
def flowise(standins: StandInAccess) -> Flowise:
    return Flowise(standins.flowise_url, "key", timeout=5, policy=QUICK)


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A JPEG of 600 x 400: red, with a blue block at the lower right."""
    from PIL import Image

    image = Image.new("RGB", (600, 400), (200, 40, 30))
    image.paste((30, 60, 200), (400, 260, 580, 390))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost` that nobody has signed, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + signed.public_bytes(Encoding.PEM)
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    file.write_bytes(pem)
    return file
