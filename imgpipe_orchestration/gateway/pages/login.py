"""Sign-in and sign-out, by the key or at the OpenID Connect provider; and what a proxy of Dagster's UI asks."""

import time
from typing import Annotated
from urllib.parse import quote, urlsplit

import jwt
from fastapi import APIRouter, Form, Header, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from imgpipe_orchestration.errors import Forbidden, NotFound, Unauthenticated
from imgpipe_orchestration.gateway import session as sessions
from imgpipe_orchestration.gateway.limits import TooManyRequests
from imgpipe_orchestration.gateway.pages.frame import back_to, render
from imgpipe_orchestration.gateway.session import current, safe_target
from imgpipe_orchestration.identity.model import Caller, Kind, Role
from imgpipe_orchestration.identity.oidc import CALLBACK, NoRole, Provider
from imgpipe_orchestration.web.auth import ServicesDep, is_of_another_site, same_key
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(include_in_schema=False)

ATTEMPTS = 5
"""Refused sign-ins of one address within WINDOW seconds."""
WINDOW = 300.0
STARTED_SECONDS = 600
"""Seconds that somebody may take at the provider."""
COOKIE_LOST = (
    "The key was right, but your browser did not keep the session's cookie. Allow cookies here; and where"
    " PUBLIC_BASE_URL begins with https://, sign in over HTTPS."
)


def provider(services: Services) -> Provider:
    """The provider of OIDC_ISSUER.

    Raises:
        NotFound: there is none.
    """
    if not services.settings.oidc_issuer:
        raise NotFound("No sign-in provider is set up here: sign in at /login.")
    return Provider(services.settings)


@router.get("/login", response_class=Response)
def login(request: Request, services: ServicesDep, next: str = "/", entered: str = "") -> Response:
    """Asks for the key; redirects to `next` when there is a session already.

    Args:
        entered: the key was entered just before and was right.
    """
    target = safe_target(next)
    if current(request, services) is None:
        return _form(request, services, target, wrong=COOKIE_LOST if entered else "")
    return RedirectResponse(target, 303)


@router.post("/login", response_class=Response)
def enter(
    request: Request, services: ServicesDep, key: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/"
) -> Response:
    """Checks the key. There is no session yet, hence no form token; another site's form gains nothing by a login."""
    if services.settings.oidc_issuer:
        raise Forbidden("People sign in at the provider here; ADMIN_API_KEY is for machines.")
    target = safe_target(next)
    # Back to the login, which redirects to `target` if the browser kept the cookie.
    answer: Response = back_to("/login", next=target, entered="yes")
    answer.headers["Cache-Control"] = "no-store"
    if same_key(key.strip(), services.settings.admin_api_key):  # never held up by others' wrong ones
        sessions.begin(services, answer, request, Caller("ADMIN_API_KEY", Kind.PERSON, Role.ADMIN))
        return answer
    try:
        sessions.refused(services, request, "unknown", "wrong ADMIN_API_KEY")
    except TooManyRequests as error:
        answer = _form(request, services, target, status=error.status, wrong=error.public)
        answer.headers["Retry-After"] = str(round(error.retry_after or 60))
        return answer
    return _form(request, services, target, status=401, wrong="That is not the ADMIN_API_KEY.")


@router.post("/logout", response_class=Response)
def leave(request: Request, services: ServicesDep, form_token: Annotated[str, Form()] = "") -> Response:
    """Ends the session, also one that has ended already: its form's token is then worth nothing, and not needed."""
    if is_of_another_site(request):
        raise Forbidden("The request comes from another site.")
    session = current(request, services)
    if session:
        sessions.check_form(request, session, form_token)
    answer: Response = RedirectResponse("/login", 303, {"Cache-Control": "no-store"})
    if services.settings.oidc_issuer:
        back = services.settings.public_base_url + "/login"
        if elsewhere := provider(services).ended(back):
            # A page that leads there: browsers follow no redirect of a form to another site (`form-action`).
            answer = render(request, None, "signed_out.html", provider=elsewhere)
    sessions.log_out(services, answer, session)
    return answer


def _form(request: Request, services: Services, target: str, *, status: int = 200, wrong: str = "") -> Response:
    issuer = services.settings.oidc_issuer
    named = urlsplit(issuer).netloc
    return render(request, None, "login.html", status=status, target=target, wrong=wrong, provider=named)


@router.get("/auth/sign-in", response_class=Response)
def sign_in(request: Request, services: ServicesDep, next: str = "/") -> Response:
    url, started = provider(services).begin()
    answer = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    claims = {**started, "target": safe_target(next), "exp": int(time.time()) + STARTED_SECONDS}
    value = jwt.encode(claims, sessions.key_for(services.settings, "sign-in"), algorithm="HS256")
    sessions.keep(services.settings, answer, request, sessions.STARTED_COOKIE, value, STARTED_SECONDS, CALLBACK)
    return answer


@router.get(CALLBACK, response_class=Response)
def callback(request: Request, services: ServicesDep) -> Response:
    """Where the provider sends the browser back to: begins the session."""
    found = provider(services)
    try:
        started = jwt.decode(
            request.cookies.get(sessions.STARTED_COOKIE, ""),
            sessions.key_for(services.settings, "sign-in"),
            algorithms=["HS256"],
            options={"require": ["exp"]},
        )
        caller = found.finish(started, request.query_params)
    except (jwt.PyJWTError, KeyError) as error:
        sessions.refused(services, request, "unknown", "not begun in this browser")
        raise Unauthenticated("This sign-in was not begun in this browser, or took too long. Begin again.") from error
    except (Unauthenticated, Forbidden) as error:
        name = error.name if isinstance(error, NoRole) else "unknown"
        sessions.refused(services, request, name, f"{error.public} {error.detail or ''}".strip())
        raise
    answer = RedirectResponse(started["target"], 303, {"Cache-Control": "no-store"})
    answer.delete_cookie(sessions.STARTED_COOKIE, path=CALLBACK)
    sessions.begin(services, answer, request, caller)
    return answer


@router.get("/auth/verify", status_code=204, response_class=Response)
def verify(
    request: Request,
    services: ServicesDep,
    wanted: Annotated[str, Query(alias="next")] = "",
    x_original_url: Annotated[str, Header()] = "",
    x_forwarded_uri: Annotated[str, Header()] = "",
) -> Response:
    """What nginx's auth_request and Caddy's forward_auth ask before each request to Dagster's UI: 204 with who it is,
    or 401 with where to sign in."""
    session = current(request, services)
    if session is None or session.caller.role is None:
        back = wanted or x_original_url or x_forwarded_uri
        where = f"{services.settings.public_base_url}/login" + (f"?next={quote(back, safe='')}" if back else "")
        body = {"title": "Sign in first", "status": 401, "code": "unauthenticated", "sign_in": where}
        return JSONResponse(body, 401, {"Cache-Control": "no-store", "X-Imgpipe-Sign-In": where})
    headers = {
        "X-Imgpipe-User": quote(session.caller.name, safe="@.+-_ "),
        "X-Imgpipe-Role": session.caller.role.value,
        "Cache-Control": "no-store",
    }
    return Response(status_code=204, headers=headers)
