"""Short-lived tokens that let a browser read the analysis of one image."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import jwt

from imgpipe_orchestration.errors import Unauthenticated
from imgpipe_orchestration.settings import Settings

VALID_SECONDS = 900


def issue(settings: Settings, media_id: int, *, seconds: float = VALID_SECONDS) -> tuple[str, datetime]:
    """A token for one image, and when it ends."""
    ends = datetime.now(UTC) + timedelta(seconds=seconds)
    return jwt.encode({"aud": str(media_id), "exp": ends}, _key(settings), algorithm="HS256"), ends


def check(settings: Settings, media_id: int, token: str) -> None:
    """
    Raises:
        Unauthenticated: the token is not ours, has ended, or is for another image.
    """
    try:
        jwt.decode(token, _key(settings), algorithms=["HS256"], audience=str(media_id), options={"require": ["exp"]})
    except jwt.PyJWTError as error:
        raise Unauthenticated(
            "The token is not valid for this image, or has ended; ask your server for a new one.", detail=str(error)
        ) from error


def _key(settings: Settings) -> bytes:
    return hmac.new(settings.secret_key.encode(), b"analysis of one image", hashlib.sha256).digest()
