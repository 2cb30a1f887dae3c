"""The signature on callbacks."""

import hashlib
import hmac

import pytest

from imgpipe_orchestration.errors import Unauthenticated
from imgpipe_orchestration.partners.main_api import TOLERANCE_SECONDS, sign, verify

KEY = "main-key"
BODY = b'{"media_id": "789"}'
NOW = 1_800_000_000


def test_the_form_is_the_documented_one() -> None:
    expected = hmac.new(KEY.encode(), b"1800000000." + BODY, hashlib.sha256).hexdigest()
    assert sign(BODY, KEY, at=NOW) == f"t=1800000000,v1={expected}"


@pytest.mark.parametrize("offset", [-TOLERANCE_SECONDS - 1, TOLERANCE_SECONDS + 1])
def test_an_old_or_future_signature_is_refused(offset: int) -> None:
    with pytest.raises(Unauthenticated, match="away from our clock"):
        verify(sign(BODY, KEY, at=NOW + offset), BODY, KEY, now=NOW)


def test_another_body_key_or_stamp_is_refused() -> None:
    good = sign(BODY, KEY, at=NOW)
    moved = good.replace(str(NOW), str(NOW + 1))
    for header, body, key in ((good, BODY + b" ", KEY), (good, BODY, "other"), (moved, BODY, KEY)):
        with pytest.raises(Unauthenticated, match="does not match"):
            verify(header, body, key, now=NOW)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "t=,v1=",
        "t=abc,v1=00",
        "t=1,t=2,v1=00",
        "v1=00",
        f"t={NOW}",
        "t=²,v1=00",
        f"t={NOW},v1=é",
        f"t=-{NOW},v1=00",
        f"t={'9' * 5000},v1=00",
    ],
)
def test_a_malformed_header_is_refused_and_never_crashes(header: str) -> None:
    with pytest.raises(Unauthenticated):
        verify(header, BODY, KEY, now=NOW)
