"""How every page is rendered: the layout, the security headers, and errors as pages."""

import json
from collections.abc import Callable
from functools import cache, partial
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException

from imgpipe_orchestration.errors import BackendUnavailable, SettingsError
from imgpipe_orchestration.gateway.pages import filters
from imgpipe_orchestration.gateway.pages.subjects import ABOUT, advice
from imgpipe_orchestration.gateway.session import (
    NOT_DONE,
    LoginNeeded,
    Operator,
    Session,
    StaleForm,
    current,
    safe_target,
)
from imgpipe_orchestration.identity.oidc import NoRole
from imgpipe_orchestration.web.access import methods_at
from imgpipe_orchestration.web.auth import is_led_here_by_us
from imgpipe_orchestration.web.texts import short
from imgpipe_orchestration.web.values import Written

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
"""Everything from this origin and nothing inline, so that no script in a title or an error message can run."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

Number = Annotated[str, Written(r"^[0-9]{0,18}$", "must be a number of at most 18 digits")]
"""A number in a page's query, or an empty text, because forms send empty fields as well."""

NAVIGATION = (
    ("/", "Overview", "viewer"),
    ("/media", "Media", "viewer"),
    ("/upload", "Upload", "operator"),
    ("/listings", "Listings", "viewer"),
    ("/processing", "Auto-marker", "viewer"),
    ("/vision-reports", "Vision reports", "viewer"),
    ("/avatars", "Avatars", "viewer"),
    ("/failures", "Failures", "viewer"),
    ("/review", "Review", "operator"),
    ("/spending", "Spending", "viewer"),
    ("/trash", "Trash", "operator"),
    ("/erasures", "Erasures", "admin"),
    ("/keys", "Keys", "admin"),
    ("/audit", "Audit", "admin"),
    ("/components", "Components", "viewer"),
    ("/docs", "API", "viewer"),
)
"""Path, name and least role of what the menu leads to."""


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("imgpipe_orchestration.gateway.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters.FILTERS, advice=advice, json=partial(json.dumps, ensure_ascii=False))
    environment.globals.update(navigation=NAVIGATION)
    return environment


def render(
    request: Request, session: Session | None, template: str, *, status: int = 200, **values: Any
) -> HTMLResponse:
    """One page. `notice` and `trouble` in the query are shown at its top: the outcome of the form sent before, with the
    moment of a deletion in `undo`. Only where one of our pages led here, or any link could put words into our mouth."""
    settings = request.app.state.services.settings
    said = request.query_params if is_led_here_by_us(request) else {}
    shown = {
        "path": request.url.path,
        "about": next((about for about in ABOUT if request.url.path.startswith(about.page)), None),
        "session": session,
        "dagster": settings.dagster_url,
        "production": settings.production,
        "notice": said.get("notice", "")[:500],
        "trouble": said.get("trouble", "")[:500],
        "undo": said.get("undo", "")[:40],
        **values,
    }
    return HTMLResponse(_templates().get_template(template).render(shown), status, HEADERS)


async def _pages_of(request: Request, session: Operator) -> Callable[..., HTMLResponse]:
    return partial(render, request, session)


Page = Annotated[Callable[..., HTMLResponse], Depends(_pages_of)]
"""`render` for the person who asks, whose role covers the route: `page("x.html", status=200, **values)`."""


def part(template: str, **values: Any) -> Markup:
    """A rendered part of a page."""
    return Markup(_templates().get_template(template).render(values).strip())  # noqa: S704 - escaped by the template


_MOST_SAID = 300
"""Characters of what is told in a redirect: proxies take headers of a few KiB, and one of these may be twelve bytes."""


def back_to(path: str, *, notice: str = "", trouble: str = "", at: str = "", **query: str) -> RedirectResponse:
    """After a form: a redirect to the next page, so that reloading does not send the form again. `at` is the id of the
    part of the page to scroll to."""
    where = _saying(path, notice=short(notice, _MOST_SAID), trouble=short(trouble, _MOST_SAID), **query)
    return RedirectResponse(f"{where}#{at}" if at else where, 303)


def sent_from(request: Request) -> str:
    """The path and query of our page that a form was sent from, without messages; empty when Referer does not say, or
    when that page was the answer to a form and has no address."""
    try:
        parts = urlsplit(request.headers.get("referer", ""))
    except ValueError:  # no URL
        return ""
    if parts.netloc != request.url.netloc or "GET" not in methods_at(parts.path):
        return ""
    return safe_target(_saying(parts.path, **dict(parse_qsl(parts.query)) | {"notice": "", "trouble": "", "undo": ""}))


def _saying(path: str, /, **query: str) -> str:
    """`path` with the non-empty values of `query` added to the query that it may have already."""
    said = urlencode({name: value for name, value in query.items() if value})
    return f"{path}{'&' if '?' in path else '?'}{said}" if said else path


def _to_login(request: Request) -> Response:
    """A redirect to the login, which leads back to the page. A form's page then says that nothing was done."""
    if request.method == "GET":
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    else:
        asked = _saying(sent_from(request) or "/", trouble=NOT_DONE)
    return RedirectResponse(f"/login?next={quote(asked, safe='/')}", 303, {"Cache-Control": "no-store"})


_NO_PAGE: dict[int, str] = {
    HTTPStatus.NOT_FOUND: "There is no such page. It may have moved.",
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "There is nothing to see here: this address only takes what a page or a program sends to it."
    ),
}
"""What is said of an address that has no page."""


def instead_of(request: Request, error: Exception, document: Response) -> Response:
    """What a browser gets instead of the problem document of an error: a page with the navigation when somebody is
    signed in, after a form with a way back to it. Without a session it is led to the login, and after an outdated form
    back to that."""
    if isinstance(error, LoginNeeded):
        return _to_login(request)
    is_form = request.method == "POST"
    origin = sent_from(request) if is_form else ""
    if isinstance(error, StaleForm) and origin:
        return back_to(origin, trouble="The page was out of date, so nothing was done. It was reloaded: do it again.")
    told = json.loads(bytes(document.body))
    title, status, words = told["title"], document.status_code, told["detail"]
    if isinstance(error, HTTPException):
        words = _NO_PAGE.get(status, words)
    elif isinstance(error, SettingsError):
        words = error.public  # which the document leaves out
    try:
        session = current(request, request.app.state.services)
    except BackendUnavailable:
        session = None
    passing = status == HTTPStatus.SERVICE_UNAVAILABLE and not is_form
    back = origin and _saying(origin, trouble=words)  # with `trouble` the page has what was typed
    shown = {"title": title, "words": words, "passing": passing, "back": back, "stranger": isinstance(error, NoRole)}
    answer = render(request, session, "error.html", status=status, **shown)
    for name, value in document.headers.items():  # such as Retry-After and Allow
        answer.headers.setdefault(name, value)
    return answer
