"""Login and logout."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from imgpipe_orchestration.errors import Unauthenticated
from imgpipe_orchestration.gateway import session as sessions
from imgpipe_orchestration.gateway.pages.frame import PageRoute, back_to, page
from imgpipe_orchestration.gateway.session import Acting, LoginNeeded, TooManyAttempts, operator, safe_target
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
    try:
        operator(request, services)
    except LoginNeeded:
        return page(request, "login.html", None, target=target, wrong=COOKIE_LOST if entered else "")
    return RedirectResponse(target, 303)


@router.post("/login", response_class=Response)
def enter(
    request: Request, services: ServicesDep, key: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/"
) -> Response:
    """Checks the key. There is no session yet, hence no form token; another site's form gains nothing by a login."""
    target = safe_target(next)
    # Back to the login, which redirects to `target` if the browser kept the cookie.
    answer: Response = back_to("/login", next=target, entered="yes")
    answer.headers["Cache-Control"] = "no-store"
    try:
        sessions.log_in(services, answer, request, key)
    except (Unauthenticated, TooManyAttempts) as error:
        answer = page(request, "login.html", None, status=error.status, target=target, wrong=error.public)
        if isinstance(error, TooManyAttempts):
            answer.headers["Retry-After"] = str(round(error.retry_after or 60))
    return answer


@router.post("/logout", response_class=Response)
def leave(services: ServicesDep, session: Acting) -> Response:
    """Ends the session."""
    answer = RedirectResponse("/login", 303, {"Cache-Control": "no-store"})
    sessions.log_out(services, answer, session)
    return answer
