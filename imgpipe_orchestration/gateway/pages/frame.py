"""How every page is rendered: the layout, the security headers, and errors as pages."""

from collections.abc import Callable, Coroutine
from functools import cache, partial
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from imgpipe_orchestration.errors import BackendUnavailable, BadInput
from imgpipe_orchestration.gateway.packaged import static_url
from imgpipe_orchestration.gateway.pages import formats
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
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.web.access import methods_at
from imgpipe_orchestration.web.auth import is_led_here_by_us
from imgpipe_orchestration.web.problems import as_ours, of_http, reported
from imgpipe_orchestration.web.values import Written

log = logger(__name__)

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
    environment.filters.update(formats.FILTERS, advice=advice)
    environment.globals.update(static=static_url, navigation=NAVIGATION)
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


def back_to(path: str, *, notice: str = "", trouble: str = "", at: str = "", **query: str) -> RedirectResponse:
    """After a form: a redirect to the next page, so that reloading does not send the form again. `at` is the id of the
    part of the page to scroll to."""
    where = _saying(path, notice=notice, trouble=trouble, **query)
    return RedirectResponse(f"{where}#{at}" if at else where, 303)


def sent_from(request: Request) -> str:
    """The path and query of our page that a form was sent from, without messages; empty when Referer does not say."""
    try:
        parts = urlsplit(request.headers.get("referer", ""))
    except ValueError:  # no URL
        return ""
    if parts.netloc != request.url.netloc:
        return ""
    return safe_target(_saying(parts.path, **dict(parse_qsl(parts.query)) | {"notice": "", "trouble": "", "undo": ""}))


def _saying(path: str, /, **query: str) -> str:
    """`path` with the non-empty values of `query` added to the query that it may have already."""
    said = urlencode({name: value for name, value in query.items() if value})
    return f"{path}{'&' if '?' in path else '?'}{said}" if said else path


class PageRoute(APIRoute):
    """A route whose errors are pages for browsers; for scripts they are problem documents like everywhere."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                if not _wants_html(request):
                    raise
                # In a thread, because the error page reads the session from the database.
                return await run_in_threadpool(_failed, request, error)

        return handled


def _to_login(request: Request) -> Response:
    """A redirect to the login, which leads back to the page. A form's page then says that nothing was done."""
    if request.method == "GET":
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    else:
        asked = _saying(sent_from(request) or "/", trouble=NOT_DONE)
    return RedirectResponse(f"/login?next={quote(asked, safe='/')}", 303, {"Cache-Control": "no-store"})


def not_a_page(request: Request, error: Exception) -> Response:
    """404 and 405: a page for browsers, a problem document for scripts."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is installed for these two only
    refused = error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    answer: Response = of_http(error)
    if _wants_html(request):
        words = "There is no such page. It may have moved."
        if refused:
            words = "There is nothing to see here: this address only takes what a page or a program sends to it."
        answer = _error_page(request, error.status_code, HTTPStatus(error.status_code).phrase, words)
    answer.headers.update(error.headers or {})
    if refused and (methods := methods_at(request.url.path)):
        answer.headers["Allow"] = methods  # Starlette names those of one route
    return answer


def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, LoginNeeded):
        return _to_login(request)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        field = str(first["loc"][-1])
        error = BadInput(f"{field}: {first['msg']}", field=field)
    ours = as_ours(error) or as_ours(error.__cause__)  # the cause, while a form was read
    if ours is None:
        if isinstance(error, HTTPException):  # a form that cannot be read
            return _error_page(request, error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail))
        log.error("unhandled error", extra={"path": request.url.path}, exc_info=error)
        words = "Something went wrong on our side; it has been logged. Loading the page again may help."
        return _error_page(request, 500, "Internal error", words)
    document = reported(ours, request.url.path)
    if isinstance(ours, StaleForm) and (origin := sent_from(request)):
        return back_to(origin, trouble="The page was out of date, so nothing was done. Here it is anew: do it again.")
    answer = _error_page(request, ours.status, ours.title, ours.public)
    answer.headers.update({name: value for name, value in document.headers.items() if name in _KEPT})
    return answer


_KEPT = frozenset({"retry-after", "connection"})
"""Headers of a problem document that an error's page has too."""


def _error_page(request: Request, status: int, title: str, words: str) -> HTMLResponse:
    """An error as a page, with the navigation when somebody is signed in; after a form with a way back to it."""
    try:
        session = current(request, request.app.state.services)
    except BackendUnavailable:
        session = None
    is_form = request.method == "POST"
    passing = status == HTTPStatus.SERVICE_UNAVAILABLE and not is_form
    origin = sent_from(request) if is_form else ""
    back = origin and _saying(origin, trouble=words)  # with `trouble` the page has what was typed
    return render(request, session, "error.html", status=status, title=title, words=words, passing=passing, back=back)


def _wants_html(request: Request) -> bool:
    """Whether a browser asks for a page, and not a script for data."""
    return "text/html" in request.headers.get("accept", "")
