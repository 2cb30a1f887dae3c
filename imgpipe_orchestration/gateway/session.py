"""Who may use the pages: the operator's login, its signed cookie, and the token that every form carries.

Development on loopback is open. Everywhere else the operator shows ADMIN_API_KEY once and gets a cookie signed with
SECRET_KEY; a new ADMIN_API_KEY ends every session. Forms are taken from our own pages only: browsers say where a
request comes from, and each form carries a token that no other site can read.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

import jwt
from fastapi import Depends, Request, Response

from imgpipe_orchestration.errors import Forbidden, Retryable, Unauthenticated
from imgpipe_orchestration.gateway.auth import Backends, same_key
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings

COOKIE = "imgpipe_session"
LIFETIME = 12 * 3600
"""Seconds from login to the end of a session: a working day."""
ATTEMPTS = 5
"""Wrong keys taken from one address within WINDOW seconds."""
ATTEMPTS_OF_ALL = 50
"""Wrong keys taken from all addresses together: a guesser may have many."""
WINDOW = 300.0

_OPEN = "open"
"""The session id where there is no login."""
_PROCESS_KEY = secrets.token_bytes(32)
"""Signs form tokens where SECRET_KEY may be the one that everybody knows."""


class LoginNeeded(Unauthenticated):
    """A page was asked for without a session."""


class TooManyAttempts(Retryable):
    """Too many wrong keys; wait."""

    status = 429
    title = "Too many attempts"


@dataclass(frozen=True, slots=True)
class Session:
    """The operator's session. `form_token` goes into every form; `login` says whether there is one to end."""

    id: str
    form_token: str
    login: bool


def operator(request: Request, backends: Backends) -> Session:
    """The session of this request.

    Raises:
        LoginNeeded: no session, or one that has ended.
    """
    settings = backends.settings
    session_id = _session_id(settings, request.cookies.get(COOKIE, ""))
    if session_id and session_id not in request.app.state.ended_sessions:
        return Session(session_id, _form_token(settings, session_id), login=True)
    if not settings.production and _local(request):
        return Session(_OPEN, _form_token(settings, _OPEN), login=False)
    raise LoginNeeded("Sign in with the ADMIN_API_KEY first.")


Operator = Annotated[Session, Depends(operator)]


async def acting(request: Request, session: Operator) -> AsyncIterator[Session]:
    """The session of a request that changes something: sent by one of our own pages.

    Raises:
        Forbidden: it comes from another site, or its form is not ours or is out of date.
    """
    origin = request.headers.get("origin")
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"} or (
        origin is not None and origin.partition("://")[2] != request.url.netloc
    ):
        raise Forbidden("The request comes from another site.")
    async with AsyncExitStack() as read:
        given = request.headers.get("x-form-token")
        if given is None:
            form = await read.enter_async_context(request.form())  # open until the page has answered: it may have files
            given = str(form.get("form_token", ""))
        if not same_key(given, session.form_token):
            raise Forbidden("This form is out of date; load the page again and repeat what you did.")
        yield session


Acting = Annotated[Session, Depends(acting)]


def log_in(backends: Services, response: Response, request: Request, key: str) -> None:
    """Check the key and set the cookie.

    Raises:
        Unauthenticated: the key is wrong.
        TooManyAttempts: so were too many before it.
    """
    settings = backends.settings
    address = request.client.host if request.client else ""
    limiter: Attempts = request.app.state.login_attempts
    limiter.begin(address)
    if not same_key(key.strip(), settings.admin_api_key):
        raise Unauthenticated("That is not the ADMIN_API_KEY.")
    limiter.forgive(address)
    now = int(time.time())
    claims = {"sid": secrets.token_urlsafe(18), "iat": now, "exp": now + LIFETIME}
    secure = request.url.scheme == "https" or settings.public_base_url.startswith("https://")
    response.set_cookie(
        COOKIE,
        jwt.encode(claims, _key(settings, "session"), algorithm="HS256"),
        max_age=LIFETIME,
        httponly=True,
        secure=secure,
        samesite="lax",
    )


def log_out(response: Response, request: Request, session: Session) -> None:
    """End the session: a copy of its cookie opens nothing any more."""
    request.app.state.ended_sessions.add(session.id)
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")


class EndedSessions:
    """Sessions that somebody signed out of before their time. Kept in memory: other gateways, and this one after a
    restart, take a copy of the cookie until it expires."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._until

    def add(self, session_id: str) -> None:
        now = time.time()
        self._until = {one: until for one, until in self._until.items() if until > now} | {session_id: now + LIFETIME}


class Attempts:
    """Wrong keys of late, by address and in all. Kept in memory: a restart forgets at most WINDOW seconds of them.

    A try counts as wrong until its key turns out to be right: guesses that come at once are not let in together.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wrong: deque[tuple[float, str]] = deque()

    def begin(self, address: str) -> None:
        """Count a try.

        Raises:
            TooManyAttempts: this address, or all together, had their share.
        """
        with self._lock:
            self._forget()
            own = [at for at, who in self._wrong if who == address]
            if len(own) < ATTEMPTS and len(self._wrong) < ATTEMPTS_OF_ALL:
                self._wrong.append((time.monotonic(), address))
                return
            oldest = own[0] if len(own) >= ATTEMPTS else self._wrong[0][0]
        wait = max(1.0, oldest + WINDOW - time.monotonic())
        raise TooManyAttempts(f"Too many wrong keys; try again in {wait:.0f} seconds.", retry_after=wait)

    def forgive(self, address: str) -> None:
        """The key was right."""
        with self._lock:
            last = next((one for one in reversed(self._wrong) if one[1] == address), None)
            if last is not None:
                self._wrong.remove(last)

    def _forget(self) -> None:
        while self._wrong and self._wrong[0][0] < time.monotonic() - WINDOW:
            self._wrong.popleft()


def safe_target(target: str) -> str:
    """Where to go after the login: a path of ours, never another site's address."""
    try:
        parts = urlsplit(target)
    except ValueError:  # no URL
        return "/"
    if parts.scheme or parts.netloc or not target.startswith("/") or target.startswith(("//", "/\\")):
        return "/"
    return target


def signed_in(settings: Settings, cookie: str) -> bool:
    """Whether the cookie is one of ours, of a session that has not ended."""
    return _session_id(settings, cookie) is not None


def _session_id(settings: Settings, cookie: str) -> str | None:
    """The session of a cookie that is ours and has not ended."""
    try:
        claims = jwt.decode(cookie, _key(settings, "session"), algorithms=["HS256"], options={"require": ["exp"]})
        return str(claims["sid"])
    except (jwt.PyJWTError, KeyError):
        return None


def _key(settings: Settings, purpose: str) -> bytes:
    """A key for one purpose; it changes with SECRET_KEY and with ADMIN_API_KEY."""
    words = f"{purpose}:{settings.admin_api_key}".encode()
    return hmac.new(settings.secret_key.encode(), words, hashlib.sha256).digest()


def _form_token(settings: Settings, session_id: str) -> str:
    key = _key(settings, "form") if settings.production else _PROCESS_KEY
    return hmac.new(key, session_id.encode(), hashlib.sha256).hexdigest()


def _local(request: Request) -> bool:
    """Whether the request comes from this machine and was meant for it: a rebound name of another site is neither."""
    return _loopback(request.client.host if request.client else "") and _loopback(request.url.hostname or "")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
