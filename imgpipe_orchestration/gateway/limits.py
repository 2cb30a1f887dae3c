"""Limits of one caller: the size of a request, wrong keys and uploads per minute.

Each gateway counts for itself, in memory: with three gateways behind a load balancer a caller may have three times as
much. A caller's address is the one that uvicorn names. Behind a proxy, set FORWARDED_ALLOW_IPS to the proxy's address,
or all callers have that address.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode

from cachetools import LRUCache
from fastapi.concurrency import run_in_threadpool
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy import Engine
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgpipe_orchestration.errors import BackendUnavailable, ImgpipeError, Retryable, Unauthenticated
from imgpipe_orchestration.gateway.bodies import AT_ONCE, Body
from imgpipe_orchestration.gateway.session import COOKIE, NOT_DONE, claims_of, keep_only_our_cookies
from imgpipe_orchestration.identity import keys
from imgpipe_orchestration.listings.model import MOST_IMAGES
from imgpipe_orchestration.media.model import FIELDS
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.vision_reports.backend_routes import FILES_AT_ONCE
from imgpipe_orchestration.vision_reports.model import IMAGE_BYTES
from imgpipe_orchestration.web import problems
from imgpipe_orchestration.web.auth import of_environment, user_of

log = logger(__name__)

REQUEST_BYTES = 4 * 1024 * 1024
"""Largest request body without files."""
STRANGERS_BYTES = 64 * 1024
"""Largest body of somebody without a key or a session, in production. A route reads it before it asks who sent it, and
four megabytes of empty lists take a second."""
UPLOADS_PER_MINUTE = 600
"""From one caller, in production."""
WRONG_KEYS_PER_MINUTE = 300
"""From one address, in production."""
MOST_CALLERS = 50_000
"""Callers whose rates are remembered; the least recently seen is forgotten first."""
_CARRIES = frozenset({b"authorization", b"content-length", b"transfer-encoding"})
"""Headers of a request that carries a key or a body."""
_PAGES = frozenset({("POST", "/upload"), ("POST", "/listings")})
"""Forms of the operator's pages: they need a session, and no rate applies to them."""


class TooManyRequests(Retryable):
    """This caller asks more often than it may."""

    status = 429
    report = False


class Rate:
    """A token bucket for each caller: `most` events in `seconds`, which may come all at once. 0: no limit."""

    def __init__(self, most: int, seconds: float = 60.0) -> None:
        self._most, self._each = float(most), seconds / most if most else 0.0
        self._callers: LRUCache[str, tuple[float, float]] = LRUCache(MOST_CALLERS)
        self._lock = threading.Lock()

    def wait(self, caller: str) -> float:
        """Seconds until the caller's next event is allowed; 0 for now."""
        return max(0.0, (1.0 - self._tokens(caller)) * self._each) if self._most else 0.0

    def count(self, caller: str) -> None:
        """Count an event of the caller."""
        if self._most:
            self._callers[caller] = (self._tokens(caller) - 1, time.monotonic())

    def take(self, caller: str, words: str) -> None:
        """Count an event of the caller, from any thread.

        Raises:
            TooManyRequests: it is one too many; says `words`.
        """
        with self._lock:
            if seconds := self.wait(caller):
                raise TooManyRequests(words, retry_after=seconds)
            self.count(caller)

    def _tokens(self, caller: str) -> float:
        tokens, at = self._callers.get(caller, (self._most, 0.0))
        return min(self._most, tokens + (time.monotonic() - at) / self._each)


def upload_limits(settings: Settings) -> dict[tuple[str, str], int]:
    """Routes that take files, and the most bytes of a request to each."""
    form = 1024 * 1024  # texts and boundaries
    listing = MOST_IMAGES * settings.upload_max_bytes + form
    return {
        # Room for one file too many, so that the route can say which field is wrong.
        ("PATCH", "/users/me"): (len(FIELDS) + 1) * settings.upload_max_bytes + form,
        ("POST", "/api/media/uploads"): form,
        ("POST", "/api/upload/listing_image"): listing,
        ("POST", "/batch-analysis/images"): FILES_AT_ONCE * IMAGE_BYTES + form,
        ("POST", "/upload"): settings.upload_max_bytes + form,
        ("POST", "/listings"): listing,
    }


class LimitRequests:
    """Middleware that answers requests over a limit with a problem document, before a route sees them."""

    def __init__(self, app: ASGIApp, settings: Settings, engine: Callable[[], Engine]) -> None:
        self.app = app
        self._settings = settings
        self._uploads: Mapping[tuple[str, str], int] = upload_limits(settings)
        self._wrong_keys = Rate(WRONG_KEYS_PER_MINUTE if settings.production else 0)
        self._upload_rate = Rate(UPLOADS_PER_MINUTE if settings.production else 0)
        self._turns = asyncio.Semaphore(AT_ONCE)  # which lets in who came first
        self._told = Rate(1)  # one line a minute and address: a scan must not fill the log
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        names = {name for name, _ in scope["headers"]}
        if b"cookie" in names:
            keep_only_our_cookies(scope)
        route = scope["method"], scope["path"]
        upload = route in self._uploads
        if not upload and _CARRIES.isdisjoint(names):
            await self.app(scope, receive, send)  # most requests have no key and no body
            return
        headers = Headers(scope=scope)
        credential = headers.get("authorization")
        held, page = self._settings.production, route in _PAGES
        inside = held and claims_of(self._settings, HTTPConnection(scope).cookies.get(COOKIE, "")) is not None
        address = scope["client"][0] if scope.get("client") else ""
        caller = await self._caller(credential)
        try:
            if not page:
                self._admit(address, credential, caller, upload=upload)
            elif held and not inside:
                raise Unauthenticated("You are not signed in, or no longer: sign in at /login and send it again.")
        except ImgpipeError as error:
            answer: Response = problems.of_error(error)
            if page and "text/html" in headers.get("accept", ""):
                target = quote(f"{scope['path']}?{urlencode({'trouble': NOT_DONE})}", safe="/")
                answer = RedirectResponse(f"/login?next={target}", 303, {"Cache-Control": "no-store"})
            await answer(scope, receive, send)
            return
        most = self._uploads.get(route, REQUEST_BYTES)
        if held and not (caller or inside):
            most = min(most, STRANGERS_BYTES)
        body = Body(receive, headers, most, self._turns if upload else None)
        try:
            await self.app(scope, body.receive, self._watched(send, address, scope) if credential else send)
        finally:
            body.give_turn_back()

    def _admit(self, address: str, credential: str | None, caller: str, *, upload: bool) -> None:
        # A right key is never held up by others' wrong ones from the same address.
        if credential and not caller and (seconds := self._wrong_keys.wait(address)):
            raise TooManyRequests("Too many wrong keys came from your address; wait.", retry_after=seconds)
        if not upload:
            return
        if self._settings.production and not caller:
            # A form is read before a route asks who sent it: a stranger's hundred megabytes are not.
            if credential is None:
                raise Unauthenticated("Send `Authorization: Bearer <your token>`.")
            self._wrong_keys.count(address)
            raise Unauthenticated("The token is invalid or has expired; sign in again.")
        self._upload_rate.take(caller or address, f"At most {UPLOADS_PER_MINUTE} uploads a minute; wait.")

    async def _caller(self, credential: str | None) -> str:
        """Whose credential it is, a user's or a machine's; empty: nobody's. A user has as many tokens as sign-ins, and
        a header may write one in many ways."""
        _, key = get_authorization_scheme_param(credential)
        if key.startswith(keys.PREFIX):
            known = keys.recently(self._engine(), key)
            try:
                known = known or await run_in_threadpool(keys.find, self._engine(), key)
            except BackendUnavailable:  # its route says so
                return ""
            return f"key {known.name}" if known else ""
        try:
            return f"user {user_of(key, self._settings)}"
        except Unauthenticated:
            return " ".join(sorted(of_environment(self._settings, key)))

    def _watched(self, send: Send, address: str, scope: Scope) -> Send:
        async def watching(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == Unauthenticated.status:
                self._wrong_keys.count(address)
                if not self._told.wait(address):
                    self._told.count(address)
                    route = f"{scope['method']} {getattr(scope.get('route'), 'path', scope['path'])}"
                    log.warning("credentials refused", extra={"address": address, "route": route})
            await send(message)

        return watching
