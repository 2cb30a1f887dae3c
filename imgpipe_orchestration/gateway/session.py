"""A person's session on the pages: sign-in, signed cookie, and the token in every form (against CSRF).

Development on loopback needs no sign-in. Elsewhere people sign in at the provider that OIDC_ISSUER names
(`pages.login`) or, without one, enter ADMIN_API_KEY. They get a cookie signed with SECRET_KEY, which holds their
name and role; a new ADMIN_API_KEY ends every session. Forms are accepted from our own pages only: by the headers Origin
and Sec-Fetch-Site, and by a token in each form that no other site can read.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated

import jwt
from fastapi import Depends, Request, Response
from jwt.types import Options
from sqlalchemy import text
from starlette.types import Scope

from imgpipe_orchestration.errors import Forbidden, Unauthenticated
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.identity.model import Caller, Kind, Role
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.web.access import rule_of
from imgpipe_orchestration.web.auth import ServicesDep, audited, check_role, is_local, is_of_another_site, same_key
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

COOKIE = "imgpipe_session"
STARTED_COOKIE = "imgpipe_sign_in"
"""What a browser has to bring back from the sign-in provider."""
DESK_COOKIE = "imgpipe_desk"
"""Tells the browsers of reviewers apart who need no sign-in."""
_OURS = re.compile(r"/(?![/\\])[^\x00-\x1f]*")
"""A path on this site. Browsers drop tabs and line breaks, so `/`, a tab and `/x` would be another site's address."""
_OUR_COOKIE = re.compile(rf"(?<![^; ])(?:{COOKIE}|{STARTED_COOKIE}|{DESK_COOKIE})=[\w.-]+".encode())

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


@dataclass(frozen=True, slots=True)
class Session:
    """A person's session. `form_token` goes into every form; `login` is False where no sign-in was needed."""

    id: str
    form_token: str
    login: bool
    caller: Caller

    def may(self, role: str) -> bool:
        """Whether the person may do what this role may; pages show no other actions."""
        return self.caller.role is not None and self.caller.role.covers(Role(role))


def operator(request: Request, services: ServicesDep) -> Session:
    """The session of this request, whose role covers what the route needs.

    Raises:
        LoginNeeded: no session, or one that has ended.
        Forbidden: the role is not enough.
    """
    session = current(request, services)
    if session is None:
        raise LoginNeeded("Sign in first.")
    check_role(session.caller.role, rule_of(request)[0])
    return session


def current(request: Request, services: Services) -> Session | None:
    """The session of this request, whatever its role; None for one that has ended, or for none.

    Raises:
        BackendUnavailable: the database, which knows the ended sessions, is away.
    """
    settings = services.settings
    claims = claims_of(settings, request.cookies.get(COOKIE, ""))
    if claims:
        with transaction(services.engine) as connection:  # at each request, because other gateways end sessions too
            ended = connection.scalar(_IS_ENDED, {"id": claims["sid"]}) is not None
        if not ended:
            caller = Caller(claims["name"], Kind.PERSON, Role(claims["role"]))
            return Session(claims["sid"], _form_token(settings, claims["sid"]), login=True, caller=caller)
    if not settings.production and is_local(request):
        caller = Caller("this machine", Kind.LOCAL, Role.ADMIN)
        return Session(_OPEN, _form_token(settings, _OPEN), login=False, caller=caller)
    return None


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
        check_form(request, session, given)
        yield session


def check_form(request: Request, session: Session, token: str) -> None:
    """Let a change by the session's own form pass, and name it in the audit.

    Raises:
        StaleForm: the form is not ours or is out of date.
    """
    if not same_key(token, session.form_token):
        raise StaleForm("This form is out of date; load the page again and repeat what you did.")
    audited(request, session.caller, rule_of(request)[1])


Acting = Annotated[Session, Depends(acting)]


def begin(services: Services, response: Response, request: Request, caller: Caller) -> None:
    """Begin a session and set its cookie.

    Raises:
        BackendUnavailable: the sign-in cannot be written into the audit.
    """
    settings = services.settings
    assert caller.role is not None  # noqa: S101 - nobody without a role signs in
    audit.record(audit.Entry(services.engine, caller, address_of(request), "sign in"))
    value = cookie_of(settings, caller.name, caller.role)
    keep(settings, response, request, COOKIE, value, round(settings.session_hours * 3600))


def keep(
    settings: Settings, response: Response, request: Request, cookie: str, value: str, seconds: int, path: str = "/"
) -> None:
    """Set a cookie that no script can read, and that is sent over HTTPS only if browsers reach the pages that way."""
    secure = request.url.scheme == "https" or settings.public_base_url.startswith("https://")
    response.set_cookie(cookie, value, seconds, path=path, secure=secure, httponly=True, samesite="lax")


def cookie_of(settings: Settings, name: str, role: Role) -> str:
    """The cookie of a new session."""
    now = int(time.time())
    claims = {"sid": secrets.token_urlsafe(18), "name": name, "role": role.value}
    times = {"iat": now, "exp": now + round(settings.session_hours * 3600)}
    return jwt.encode(claims | times, key_for(settings, "session"), algorithm="HS256")


def refused(services: Services, request: Request, name: str, reason: str) -> None:
    """Log and audit a refused sign-in, at a limited rate: the audit keeps its rows, and a stranger must not fill it.

    Raises:
        TooManyRequests: too many from this address were refused lately.
    """
    caller, address = Caller(name, Kind.PERSON), address_of(request)
    rate = request.app.state.login_rate
    rate.take(address, "Too many sign-ins from your address were refused; wait a minute.")
    audit.record(audit.Entry(services.engine, caller, address, "sign in refused", after={"reason": reason}))
    log.warning("sign-in refused", extra={"address": address, "who": name, "reason": reason})


def address_of(request: Request) -> str:
    """The client's address; empty where it has none."""
    return request.client.host if request.client else ""


def log_out(services: Services, response: Response, session: Session | None) -> None:
    """End the session, if it has not ended, at all gateways and for every copy of its cookie.

    Raises:
        BackendUnavailable: the database is away; the session has not ended.
    """
    if session and session.login:
        with transaction(services.engine) as connection:
            connection.execute(_FORGET)
            connection.execute(_END, {"id": session.id, "seconds": services.settings.session_hours * 3600})
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")


_IS_ENDED = text("select 1 from ended_sessions where session_id = :id")
# The cookie of an expired session is refused by its own `exp`.
_FORGET = text("delete from ended_sessions where expires_at < now()")
_END = text("""
    insert into ended_sessions values (:id, now() + make_interval(secs => :seconds)) on conflict do nothing
""")


def safe_target(target: str) -> str:
    """Where to go after the login: a path on this site, never another site's address."""
    return target if _OURS.fullmatch(target) else "/"


def keep_only_our_cookies(scope: Scope) -> None:
    """Remove every cookie but ours from a request. Starlette parses all of them for each route, and Python
    before 3.11.10 takes seconds for a cookie of quoted backslashes (CVE-2024-7592)."""
    lines = [value for name, value in scope["headers"] if name == b"cookie"]
    ours = [found for line in lines for found in _OUR_COOKIE.findall(line)]
    scope["headers"] = [header for header in scope["headers"] if header[0] != b"cookie"]
    scope["headers"] += [(b"cookie", one) for one in {one.partition(b"=")[0]: one for one in ours}.values()]


def claims_of(settings: Settings, cookie: str) -> dict[str, str] | None:
    """What the cookie of a session says, if it is ours and has not expired. Only `current` also knows whether its owner
    has signed out."""
    try:
        needed: Options = {"require": ["exp", "sid", "name", "role"]}
        claims: dict[str, str] = jwt.decode(cookie, key_for(settings, "session"), algorithms=["HS256"], options=needed)
    except jwt.PyJWTError:
        return None
    return claims


def key_for(settings: Settings, purpose: str) -> bytes:
    """A key for one purpose; it changes with SECRET_KEY and with ADMIN_API_KEY."""
    words = f"{purpose}:{settings.admin_api_key}".encode()
    return hmac.new(settings.secret_key.encode(), words, hashlib.sha256).digest()


def _form_token(settings: Settings, session_id: str) -> str:
    key = key_for(settings, "form") if settings.production else _PROCESS_KEY
    return hmac.new(key, session_id.encode(), hashlib.sha256).hexdigest()
