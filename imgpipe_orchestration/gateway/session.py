"""The operator's session on the pages: login, signed cookie, and the token in every form (against CSRF).

Development on loopback needs no login. Elsewhere the operator enters ADMIN_API_KEY and gets a cookie signed with
SECRET_KEY; a new ADMIN_API_KEY ends every session. Forms are accepted from our own pages only: by the headers Origin
and Sec-Fetch-Site, and by a token in each form that no other site can read.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import jwt
from fastapi import Depends, Request, Response
from sqlalchemy import text

from imgpipe_orchestration.errors import Forbidden, Retryable, Unauthenticated
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep, same_key
from imgpipe_orchestration.web.origins import is_local, is_of_another_site

if TYPE_CHECKING:
    from starlette.types import Scope

COOKIE = "imgpipe_session"
_OUR_COOKIE = re.compile(rf"(?<![^; ]){COOKIE}=[\w.-]+".encode())
LIFETIME = 12 * 3600
"""Seconds from login to the end of a session: a working day."""
ATTEMPTS = 5
"""Wrong keys taken from one address within WINDOW seconds."""
ATTEMPTS_OF_ALL = 50
"""Wrong keys of all addresses together after which each address has one try: one attacker may have many addresses, and
must not lock out an operator, who has another one."""
WINDOW = 300.0

NOT_DONE = "Your session had ended, so nothing was done. Do it again."
"""Shown on the form's page after its operator has signed in again."""

_OPEN = "open"
"""The session id where there is no login."""
_PROCESS_KEY = secrets.token_bytes(32)
"""Signs form tokens in development, where SECRET_KEY may be the published default."""


class LoginNeeded(Unauthenticated):
    """A page was asked for without a session."""


class StaleForm(Forbidden):
    """A form without this session's token: it is another site's, or was loaded before a login or a restart."""


class TooManyAttempts(Retryable):
    """Too many wrong keys; wait."""

    status = 429
    title = "Too many attempts"


@dataclass(frozen=True, slots=True)
class Session:
    """The operator's session. `form_token` goes into every form; `login` is False where no login was needed."""

    id: str
    form_token: str
    login: bool


def operator(request: Request, services: ServicesDep) -> Session:
    """The session of this request.

    Raises:
        LoginNeeded: no session, or one that has ended.
        BackendUnavailable: the database, which knows the ended sessions, is away.
    """
    settings = services.settings
    session_id = _session_id(settings, request.cookies.get(COOKIE, ""))
    if session_id and not _ended(services, session_id):
        return Session(session_id, _form_token(settings, session_id), login=True)
    if not settings.production and is_local(request):
        return Session(_OPEN, _form_token(settings, _OPEN), login=False)
    raise LoginNeeded("Sign in with the ADMIN_API_KEY first.")


Operator = Annotated[Session, Depends(operator)]


async def acting(request: Request, session: Operator) -> AsyncIterator[Session]:
    """The session of a request that changes something: sent by one of our own pages.

    Raises:
        Forbidden: it comes from another site.
        StaleForm: its form is not ours or is out of date.
    """
    if is_of_another_site(request):
        raise Forbidden("The request comes from another site.")
    async with AsyncExitStack() as read:
        given = request.headers.get("x-form-token")
        if given is None:
            form = await read.enter_async_context(request.form())  # files in it stay open until the page has answered
            given = str(form.get("form_token", ""))
        if not same_key(given, session.form_token):
            raise StaleForm("This form is out of date; load the page again and repeat what you did.")
        yield session


Acting = Annotated[Session, Depends(acting)]


def log_in(services: Services, response: Response, request: Request, key: str) -> None:
    """Check the key and set the cookie.

    Raises:
        Unauthenticated: the key is wrong.
        TooManyAttempts: there were too many wrong keys before.
    """
    settings = services.settings
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


def log_out(services: Services, response: Response, session: Session) -> None:
    """End the session, at all gateways and for every copy of its cookie.

    Raises:
        BackendUnavailable: the database is away; the session has not ended.
    """
    if session.login:
        with transaction(services.engine) as connection:
            connection.execute(_FORGET)
            connection.execute(_END, {"id": session.id, "seconds": LIFETIME})
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")


def _ended(services: Services, session_id: str) -> bool:
    """Whether the session was signed out. Read at each request, because other gateways end sessions too."""
    with transaction(services.engine) as connection:
        return connection.scalar(_IS_ENDED, {"id": session_id}) is not None


class Attempts:
    """The wrong keys of the last WINDOW seconds, by address and in all, in memory.

    A try counts as wrong from its beginning until its key proves right, so guesses sent at the same time count too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wrong: deque[tuple[float, str]] = deque()

    def begin(self, address: str) -> None:
        """Count a try.

        Raises:
            TooManyAttempts: ATTEMPTS of this address were wrong, or one was, and ATTEMPTS_OF_ALL of all.
        """
        with self._lock:
            self._forget()
            own = [at for at, who in self._wrong if who == address]
            if len(own) < (ATTEMPTS if len(self._wrong) < ATTEMPTS_OF_ALL else 1):
                self._wrong.append((time.monotonic(), address))
                return
        wait = max(1.0, own[0] + WINDOW - time.monotonic())
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


_IS_ENDED = text("select 1 from ended_sessions where session_id = :id")
# The cookie of an expired session is refused by its own `exp`.
_FORGET = text("delete from ended_sessions where expires_at < now()")
_END = text("""
    insert into ended_sessions values (:id, now() + make_interval(secs => :seconds)) on conflict do nothing
""")


def safe_target(target: str) -> str:
    """Where to go after the login: a path of ours, never another site's address."""
    try:
        parts = urlsplit(target)
    except ValueError:  # no URL
        return "/"
    if parts.scheme or parts.netloc or not target.startswith("/") or target.startswith(("//", "/\\")):
        return "/"
    return target


def leave_our_cookie(scope: Scope) -> None:
    """Remove every cookie but the session's from a request. Starlette parses all of them for each route, and Python
    before 3.11.10 takes seconds for a cookie of quoted backslashes (CVE-2024-7592)."""
    lines = [value for name, value in scope["headers"] if name == b"cookie"]
    ours = [found for line in lines for found in _OUR_COOKIE.findall(line)]
    scope["headers"] = [header for header in scope["headers"] if header[0] != b"cookie"]
    scope["headers"] += [(b"cookie", one) for one in ours[-1:]]


def signed_in(settings: Settings, cookie: str) -> bool:
    """Whether the cookie is ours and has not expired. Only `operator` also knows whether its owner has signed out."""
    return _session_id(settings, cookie) is not None


def _session_id(settings: Settings, cookie: str) -> str | None:
    """The session of a cookie that is ours and has not expired."""
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
