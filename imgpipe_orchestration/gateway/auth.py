"""Who is asking: bearer keys of services, signed tokens of users."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Annotated

import jwt
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from imgpipe_orchestration.errors import Unauthenticated
from imgpipe_orchestration.services import Services

if TYPE_CHECKING:
    from jwt.types import Options

_bearer = HTTPBearer(auto_error=False, description="`Authorization: Bearer <key or token>`")

Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def services(request: Request) -> Services:
    """The app's services. `async`, because a plain function would cost every request a trip through the thread pool."""
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]


def same_key(given: str, expected: str) -> bool:
    """Whether two keys are equal, in time that does not tell how much of them is."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def bears(credentials: Credentials, *keys: str) -> bool:
    """Whether the bearer key is one of these; each is compared with, so that the time does not tell which it is."""
    given = credentials.credentials if credentials else ""
    return any([same_key(given, key) for key in keys])  # noqa: C419 - a generator would stop at the first


def media_key(credentials: Credentials, services: ServicesDep) -> None:
    """Asks for `Authorization: Bearer MEDIA_API_KEY`.

    MAIN_API_KEY is taken too: it is what our own worker signs its callbacks with, when the main API is this gateway.
    """
    settings = services.settings
    if not bears(credentials, settings.media_api_key, settings.main_api_key):
        raise Unauthenticated("Send `Authorization: Bearer <MEDIA_API_KEY>`.")


def admin_key(credentials: Credentials, services: ServicesDep) -> None:
    """Asks for `Authorization: Bearer ADMIN_API_KEY` in production; development on loopback is open."""
    settings = services.settings
    if settings.production and not bears(credentials, settings.admin_api_key):
        raise Unauthenticated("Send `Authorization: Bearer <ADMIN_API_KEY>`.")


def user_id(credentials: Credentials, services: ServicesDep) -> int:
    """The user of a token signed with USER_JWT_SECRET (HS256); `sub` is the numeric user id."""
    if credentials is None:
        raise Unauthenticated("Send `Authorization: Bearer <your token>`.")
    return user_of(credentials.credentials, services.settings.user_jwt_secret)


def user_of(token: str, secret: str) -> int:
    """
    Raises:
        Unauthenticated: the token is not signed with `secret`, does not hold now, or names no user.
    """
    try:
        # PyJWT wants `sub` to be a string; other libraries sign numbers. It refuses any audience that it was not told
        # of; a secret that signs users' tokens only says enough of what a token is for.
        options: Options = {"verify_sub": False, "verify_aud": False}
        claims = jwt.decode(token, secret, algorithms=["HS256"], options=options)
        user = int(str(claims["sub"]))
    except (jwt.PyJWTError, KeyError, ValueError) as error:
        raise Unauthenticated("The token is invalid or has expired; sign in again.", detail=str(error)) from error
    if not 0 < user < 2**63:
        raise Unauthenticated("The token does not name a user.")
    return user


User = Annotated[int, Depends(user_id)]
