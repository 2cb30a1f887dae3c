"""Who is asking: the bearer keys of machines, signed tokens of users, the header `X-Customer-ID`; and from where.

The table of `web.access` says who may.
"""

import hmac
import re
from ipaddress import ip_address
from typing import Annotated

import jwt
from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jwt.types import Options

from imgpipe_orchestration.errors import BadInput, Forbidden, Unauthenticated
from imgpipe_orchestration.identity import audit, keys
from imgpipe_orchestration.identity.model import Caller, Kind, Role
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.web.access import Rule, rule_of
from imgpipe_orchestration.wiring.services import Services

_bearer = HTTPBearer(auto_error=False, description="`Authorization: Bearer <key or token>`")

Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]

_KEYS = ("admin_api_key", "media_api_key", "main_api_key", "backend_api_key", "metrics_api_key")
"""The settings that hold a key."""
_USER_ID = re.compile(r"[0-9]{1,19}", re.ASCII)


async def services(request: Request) -> Services:
    """The app's services. `async`, because FastAPI runs a plain function in the thread pool at every request."""
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]


def same_key(given: str, expected: str) -> bool:
    """Whether two keys are equal, in constant time. No key equals an `expected` one that is empty."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def of_environment(settings: Settings, given: str) -> set[str]:
    """The settings that this is the key of. All are compared, so that the time does not tell which one it is."""
    return {name for name, same in [(name, same_key(given, getattr(settings, name))) for name in _KEYS] if same}


def caller_of(request: Request, given: str | None, services: Services, rule: Rule) -> Caller | None:
    """Who asks, as far as the rule can let them in; None for nobody.

    Raises:
        BackendUnavailable: a named key, and the database is away.
    """
    settings = services.settings
    if given is not None:
        ours = of_environment(settings, given)
        if "admin_api_key" in ours and rule.role:
            return Caller("ADMIN_API_KEY", Kind.ENVIRONMENT, Role.ADMIN)
        if opening := [name for name in rule.keys if name in ours]:
            return Caller(opening[0].upper(), Kind.ENVIRONMENT)
        if rule.role and (named := keys.find(services.engine, given)):
            return named
        if rule.user and not given.startswith(keys.PREFIX):
            user = user_of(given, settings)
            return Caller(f"user {user}", Kind.USER, user=user)
    # Another site's page may send a request to this machine as well, over its own name for 127.0.0.1 or without reading
    # the answer: it could order what is paid for. Whose answer no other site gets to see may be asked for.
    harmless = request.method == "GET" or not is_of_another_site(request)
    # A key that is sent must not open more here than elsewhere, or whoever tries roles on a laptop sees no refusal.
    if given is None and rule.local and not settings.production and is_local(request) and harmless:
        return Caller("this machine", Kind.LOCAL, Role.ADMIN)
    return None


def allowed(request: Request, credentials: Credentials, services: ServicesDep) -> Caller:
    """The caller, whom the route's rule lets in.

    Raises:
        Unauthenticated: no key or token, or one that opens nothing here.
        Forbidden: a named key whose role is not enough.
    """
    rule, action = rule_of(request)
    caller = caller_of(request, credentials.credentials if credentials else None, services, rule)
    if caller is None:
        names = [name.upper() for name in rule.keys[:1]] or (["ADMIN_API_KEY"] if rule.role else [])
        asked = " or ".join([*names, *(["your token"] if rule.user else [])])
        raise Unauthenticated(f"Send `Authorization: Bearer <{asked}>`.")
    if caller.kind is Kind.KEY:
        check_role(caller.role, rule)
    audited(request, caller, action)
    return caller


Allowed = Annotated[Caller, Depends(allowed)]


def check_role(role: Role | None, rule: Rule) -> None:
    """Raises:
    Forbidden: the role does not cover what the rule needs.
    """
    if rule.role and not (role and role.covers(rule.role)):
        raise Forbidden(f"This needs the role {rule.role}; yours is {role or 'none'}.")


def audited(request: Request, caller: Caller, action: str) -> None:
    """Name the caller and the change in the row that the request will leave in the audit."""
    entry: audit.Entry | None = request.scope.get("imgpipe.audit")
    if entry is not None:
        entry.caller, entry.action = caller, action
        entry.subject = entry.subject or " ".join(str(value) for value in request.path_params.values())


async def user_id(caller: Allowed) -> int:
    """The user who asks, at routes that only a user's token opens."""
    assert caller.user is not None  # noqa: S101 - their rule lets nobody else in
    return caller.user


def user_of(token: str, settings: Settings) -> int:
    """The user id of a token signed with USER_JWT_SECRET (HS256); `sub` is the numeric user id.

    Raises:
        Unauthenticated: the token is not signed with USER_JWT_SECRET, has expired, is not valid yet, never expires
            or names no user.
    """
    try:
        # `sub` may be a number, which other libraries sign and PyJWT refuses. `aud` may be anything: USER_JWT_SECRET
        # signs nothing but users' tokens. `iat` forbids nothing, and comes from clocks that are a second ahead.
        needed = ["exp"] if settings.user_jwt_needs_exp else []
        options: Options = {"verify_sub": False, "verify_aud": False, "verify_iat": False, "require": needed}
        subject = jwt.decode(token, settings.user_jwt_secret, algorithms=["HS256"], options=options)["sub"]
    except jwt.MissingRequiredClaimError as error:
        raise Unauthenticated("The token never expires; sign it with `exp`.", detail=str(error)) from error
    except (jwt.PyJWTError, KeyError, ValueError) as error:
        raise Unauthenticated("The token is invalid or has expired; sign in again.", detail=str(error)) from error
    # A bool is an int, and int() takes `4_2` and the digits of other scripts.
    written = "" if isinstance(subject, bool) else str(subject)
    if not _USER_ID.fullmatch(written) or not 0 < int(written) < 2**63:
        raise Unauthenticated("The token does not name a user: `sub` is the user id in digits.")
    return int(written)


User = Annotated[int, Depends(user_id)]


def is_local(request: Request) -> bool:
    """Whether both the client and the Host are loopback. The Host too, against DNS rebinding by another site."""
    return is_loopback(request.client.host if request.client else "") and is_loopback(request.url.hostname or "")


def is_of_another_site(request: Request) -> bool:
    """Whether a page of another site sent the request, according to Origin and Sec-Fetch-Site."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return True
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.url.netloc


def is_led_here_by_us(request: Request) -> bool:
    """Whether one of our own pages led a browser here: no other site's link, no bookmark and no typed address. True
    where the browser does not say, as over plain http."""
    return request.headers.get("sec-fetch-site", "same-origin") == "same-origin"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


CustomerHeader = Annotated[str | None, Header(alias="X-Customer-ID", description="The customer, in UTF-8.")]


def text_of(header: str) -> str:
    """A header's value as text: ASGI hands over bytes read as Latin-1, clients send UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header


def customer_if_any(x_customer_id: CustomerHeader = None) -> str | None:
    """The customer who asks, or None when an operator asks.

    Raises:
        BadInput: the header is empty. That must not be taken for an operator, who sees everybody's jobs.
    """
    if x_customer_id is None:
        return None
    customer = text_of(x_customer_id)
    if not customer:
        raise BadInput("X-Customer-ID is empty.", field="X-Customer-ID")
    return customer


CustomerIfAny = Annotated[str | None, Depends(customer_if_any)]


def customer_required(customer: CustomerIfAny) -> str:
    """The customer who asks.

    Raises:
        BadInput: the header is missing.
    """
    if customer is None:
        raise BadInput("Send the header X-Customer-ID.", field="X-Customer-ID")
    return customer


Customer = Annotated[str, Depends(customer_required)]
