"""Authentication: bearer keys of services, signed tokens of users."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Annotated

import jwt
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from imgpipe_orchestration.errors import Unauthenticated
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.web.origins import is_local, is_of_another_site

if TYPE_CHECKING:
    from jwt.types import Options

_bearer = HTTPBearer(auto_error=False, description="`Authorization: Bearer <key or token>`")

Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def services(request: Request) -> Services:
    """The app's services. `async`, because FastAPI runs a plain function in the thread pool at every request."""
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]


def same_key(given: str, expected: str) -> bool:
    """Whether two keys are equal, in constant time. No key equals an `expected` one that is empty."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def bears(credentials: Credentials, *keys: str) -> bool:
    """Whether the bearer key is one of `keys`. All are compared, so that the time does not tell which one it is."""
    given = credentials.credentials if credentials else ""
    return any([same_key(given, key) for key in keys])  # noqa: C419 - a generator would stop at the first


def media_key(credentials: Credentials, services: ServicesDep) -> None:
    """Asks for `Authorization: Bearer MEDIA_API_KEY`.

    MAIN_API_KEY is accepted too: our own workers send it with their callbacks when the main API is this gateway.

    Raises:
        Unauthenticated: another key, or none.
    """
    settings = services.settings
    if not bears(credentials, settings.media_api_key, settings.main_api_key):
        raise Unauthenticated("Send `Authorization: Bearer <MEDIA_API_KEY>`.")


def opens(request: Request, credentials: Credentials, services: Services, *keys: str) -> bool:
    """Whether a request comes with one of the keys; in development also one of this machine's own programs or pages.

    Another site's page may send a request there as well, over its own name for 127.0.0.1 or without reading the answer:
    it could order what is paid for.
    """
    if bears(credentials, *keys):
        return True
    reads = request.method in {"GET", "HEAD"}  # whose answer no other site gets to see
    return not services.settings.production and is_local(request) and (reads or not is_of_another_site(request))


def admin_key(request: Request, credentials: Credentials, services: ServicesDep) -> None:
    """Asks for `Authorization: Bearer ADMIN_API_KEY` in production; development on loopback is open.

    Raises:
        Unauthenticated: another key, or none.
    """
    if not opens(request, credentials, services, services.settings.admin_api_key):
        raise Unauthenticated("Send `Authorization: Bearer <ADMIN_API_KEY>`.")


def user_id(credentials: Credentials, services: ServicesDep) -> int:
    """The user of a token signed with USER_JWT_SECRET (HS256); `sub` is the numeric user id.

    Raises:
        Unauthenticated: no token, or as `user_of`.
    """
    if credentials is None:
        raise Unauthenticated("Send `Authorization: Bearer <your token>`.")
    return user_of(credentials.credentials, services.settings.user_jwt_secret)


def user_of(token: str, secret: str) -> int:
    """The user id of a token.

    Raises:
        Unauthenticated: the token is not signed with `secret`, has expired or is not valid yet, or names no user.
    """
    try:
        # `sub` may be a number, which other libraries sign and PyJWT refuses. `aud` may be anything: USER_JWT_SECRET
        # signs nothing but users' tokens.
        options: Options = {"verify_sub": False, "verify_aud": False}
        claims = jwt.decode(token, secret, algorithms=["HS256"], options=options)
        user = int(str(claims["sub"]))
    except (jwt.PyJWTError, KeyError, ValueError) as error:
        raise Unauthenticated("The token is invalid or has expired; sign in again.", detail=str(error)) from error
    if not 0 < user < 2**63:
        raise Unauthenticated("The token does not name a user.")
    return user


User = Annotated[int, Depends(user_id)]
