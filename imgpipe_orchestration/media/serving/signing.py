"""Signatures in URLs that give access to a private image until they expire.

A signature is a JWT (HS256) for one image: `aud` is its id, `exp` its end, and `size`, `format` and `bg` are included
if the URL may only be used with that value. Otherwise a front end may append another size to the URL.
"""

import hashlib
import hmac
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import jwt

from imgpipe_orchestration.errors import Forbidden
from imgpipe_orchestration.media import model
from imgpipe_orchestration.media.serving import decision
from imgpipe_orchestration.settings import Settings

VALID_SECONDS = 3600.0
"""How long the signed URL of a private image is valid, unless its owner says otherwise."""
NOTHING: Mapping[str, str] = {}
WHOLE: Mapping[str, None] = {"size": None, "format": None, "bg": None}
"""For `check`: what is asked for is of the whole image, so that a signature that fixes something does not open it."""


class PrivateImage(Forbidden):
    """The image is private and the URL has no signature."""


class LinkExpired(Forbidden):
    """The signature has expired."""


class LinkInvalid(Forbidden):
    """The signature is not ours, or is for another image or other parameters."""


def sign(settings: Settings, media_id: int, *, seconds: float, fixed: Mapping[str, str]) -> tuple[str, datetime]:
    """A signature for one image, and when it ends. `fixed` are parameters that must have exactly these values."""
    ends = datetime.fromtimestamp(math.ceil(time.time() + seconds), UTC)
    key_id, key = next(iter(_keys(settings).items()))
    return jwt.encode({**fixed, "aud": str(media_id), "exp": ends}, key, "HS256", headers={"kid": key_id}), ends


def signed_url(
    settings: Settings, media_id: int, *, seconds: float | None = None, fixed: Mapping[str, str] = NOTHING
) -> tuple[str, datetime]:
    """The signed URL of a private image, valid for `seconds` (default VALID_SECONDS), and when it ends."""
    signature, ends = sign(settings, media_id, seconds=seconds or VALID_SECONDS, fixed=fixed)
    query = {"size": decision.DEFAULT_SIZE, **fixed, "signature": signature}
    return f"{settings.smart_media_base_url}/{media_id}?{urlencode(query)}", ends


def url_for_owner(settings: Settings, media_id: int, *, private: bool) -> str:
    """The smart URL of an image for its owner, signed if the image is private."""
    if private:
        return signed_url(settings, media_id)[0]
    return model.smart_url(settings.smart_media_base_url, media_id)


def check(settings: Settings, media_id: int, signature: str | None, asked: Mapping[str, str | None]) -> int:
    """Check a signature for a request; returns the seconds for which it stays valid.

    Args:
        asked: the parameters' values; None must be left free by the signature.

    Raises:
        PrivateImage, LinkExpired, LinkInvalid: no signature, or not a valid one.
    """
    claims = claims_of(settings, media_id, signature)
    for name, value in asked.items():
        if claims.get(name, value) != value:
            raise LinkInvalid(f"This signed URL is for {name}={claims[name]} only.")
    return max(0, int(claims["exp"] - time.time()))


def claims_of(settings: Settings, media_id: int, signature: str | None) -> dict[str, Any]:
    """What a valid signature says: among others the parameters that it fixes.

    Raises:
        PrivateImage, LinkExpired, LinkInvalid: as `check`.
    """
    if not signature:
        raise PrivateImage("This image is private; ask its owner for a signed URL.")
    try:
        key = _keys(settings)[jwt.get_unverified_header(signature)["kid"]]
        return jwt.decode(
            signature, key, algorithms=["HS256"], audience=str(media_id), options={"require": ["exp", "aud"]}
        )
    except jwt.ExpiredSignatureError as error:
        raise LinkExpired("This signed URL has expired; ask for a new one.") from error
    except (jwt.PyJWTError, KeyError, TypeError) as error:
        raise LinkInvalid("The signature is not valid for this image; ask for a new one.", detail=str(error)) from error


def _keys(settings: Settings) -> dict[str, bytes]:
    """The keys by key id; the first one signs, all of them verify. A key id is a hash that does not reveal its key."""
    secrets = settings.url_keys or [settings.secret_key]
    keys = [hmac.new(secret.encode(), b"signed urls", hashlib.sha256).digest() for secret in secrets]
    return {hashlib.sha256(key).hexdigest()[:8]: key for key in keys}
