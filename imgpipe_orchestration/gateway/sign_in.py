"""Sign-in and sign-out at the OpenID Connect provider, and what a proxy in front of Dagster's UI asks."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated
from urllib.parse import quote

import jwt
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from imgpipe_orchestration.errors import Forbidden, NotFound, Unauthenticated
from imgpipe_orchestration.gateway import session as sessions
from imgpipe_orchestration.gateway.pages.frame import PageRoute
from imgpipe_orchestration.identity.oidc import CALLBACK, NoRole, Provider, Started
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.web.auth import ServicesDep

router = APIRouter(prefix="/auth", include_in_schema=False, route_class=PageRoute)

STARTED_SECONDS = 600
"""Seconds that somebody may take at the provider."""


def provider(request: Request, services: Services) -> Provider:
    """The provider of OIDC_ISSUER.

    Raises:
        NotFound: there is none.
    """
    if not services.settings.oidc_issuer:
        raise NotFound("No sign-in provider is set up here: sign in at /login.")
    state = request.app.state
    if getattr(state, "oidc_provider", None) is None:
        state.oidc_provider = Provider(services.settings)
    found: Provider = state.oidc_provider
    return found


@router.get("/sign-in", response_class=Response)
def sign_in(request: Request, services: ServicesDep, next: str = "/") -> Response:
    """Sends the browser to the provider."""
    url, started = provider(request, services).begin(sessions.safe_target(next))
    answer = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    claims = {**asdict(started), "exp": int(time.time()) + STARTED_SECONDS}
    answer.set_cookie(
        sessions.STARTED_COOKIE,
        jwt.encode(claims, sessions.key_for(services.settings, "sign-in"), algorithm="HS256"),
        max_age=STARTED_SECONDS,
        path=CALLBACK,
        httponly=True,
        secure=sessions.is_secure(services.settings, request),
        samesite="lax",
    )
    return answer


@router.get(CALLBACK.removeprefix("/auth"), response_class=Response)
def callback(request: Request, services: ServicesDep) -> Response:
    """Where the provider sends the browser back to: begins the session."""
    found = provider(request, services)
    try:
        claims = jwt.decode(
            request.cookies.get(sessions.STARTED_COOKIE, ""),
            sessions.key_for(services.settings, "sign-in"),
            algorithms=["HS256"],
            options={"require": ["exp"]},
        )
        started = Started(claims["state"], claims["nonce"], claims["verifier"], claims["target"])
        caller = found.finish(started, request.query_params)
    except (jwt.PyJWTError, KeyError) as error:
        sessions.refused(services, request, "unknown", "not begun in this browser")
        raise Unauthenticated("This sign-in was not begun in this browser, or took too long. Begin again.") from error
    except (Unauthenticated, Forbidden) as error:
        name = error.name if isinstance(error, NoRole) else "unknown"
        sessions.refused(services, request, name, error.public)
        raise
    answer = RedirectResponse(started.target, 303, {"Cache-Control": "no-store"})
    answer.delete_cookie(sessions.STARTED_COOKIE, path=CALLBACK)
    sessions.begin(services, answer, request, caller)
    return answer


@router.get("/verify", status_code=204, response_class=Response)
def verify(
    request: Request,
    services: ServicesDep,
    wanted: Annotated[str, Query(alias="next")] = "",
    x_original_url: Annotated[str, Header()] = "",
    x_forwarded_uri: Annotated[str, Header()] = "",
) -> Response:
    """What nginx's auth_request and Caddy's forward_auth ask before each request to Dagster's UI: 204 with who it is,
    or 401 with where to sign in."""
    session = sessions.current(request, services)
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
