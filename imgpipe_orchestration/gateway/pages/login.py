"""Login and logout."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from imgpipe_orchestration.errors import Forbidden, Unauthenticated
from imgpipe_orchestration.gateway import session as sessions
from imgpipe_orchestration.gateway.pages.frame import PageRoute, back_to, page
from imgpipe_orchestration.gateway.session import Acting, TooManyAttempts, current, safe_target
from imgpipe_orchestration.gateway.sign_in import provider
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.web.auth import ServicesDep

router = APIRouter(include_in_schema=False, route_class=PageRoute)

COOKIE_LOST = (
    "The key was right, but your browser did not keep the session's cookie. Allow cookies here; and where"
    " PUBLIC_BASE_URL begins with https://, sign in over HTTPS."
)


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
    try:
        sessions.log_in(services, answer, request, key)
    except (Unauthenticated, TooManyAttempts) as error:
        answer = _form(request, services, target, status=error.status, wrong=error.public)
        if isinstance(error, TooManyAttempts):
            answer.headers["Retry-After"] = str(round(error.retry_after or 60))
    return answer


@router.post("/logout", response_class=Response)
def leave(request: Request, services: ServicesDep, session: Acting) -> Response:
    """Ends the session, here and at the provider."""
    answer: Response = RedirectResponse("/login", 303, {"Cache-Control": "no-store"})
    if session.login and services.settings.oidc_issuer:
        back = services.settings.public_base_url + "/login"
        if elsewhere := provider(request, services).ended(back):
            # A page that leads there: browsers follow no redirect of a form to another site (`form-action`).
            answer = page(request, "signed_out.html", None, provider=elsewhere)
    sessions.log_out(services, answer, session)
    return answer


def _form(request: Request, services: Services, target: str, *, status: int = 200, wrong: str = "") -> Response:
    issuer = services.settings.oidc_issuer
    named = urlsplit(issuer).netloc
    return page(request, "login.html", None, status=status, target=target, wrong=wrong, provider=named)
