"""One request's body: measured and timed as it arrives, and refused on the way.

A chunked body without a length so has the same limit as any other.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from starlette.responses import RedirectResponse, Response

from imgpipe_orchestration.errors import BackendUnavailable, ImgpipeError, Permanent, TooLarge
from imgpipe_orchestration.gateway.session import NOT_DONE, LoginNeeded
from imgpipe_orchestration.gateway.turns import Turns
from imgpipe_orchestration.web import problems
from imgpipe_orchestration.web.multipart import FormRewriter
from imgpipe_orchestration.web.sizes import size_text

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.types import Message, Receive, Send


BODY_SECONDS = 300.0
"""Time limit for a request body."""
IDLE_SECONDS = 30.0
"""Longest pause within a request body."""


class TooSlow(Permanent):
    """The body did not arrive in time."""

    status = 408
    title = "Too slow"


class Compressed(Permanent):
    """The body is compressed."""

    status = 415
    title = "Compressed body"


class Body:
    """One request's body on its way in, and the answer on its way out, which a refusal replaces."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        headers: Headers,
        most: int,
        page: str = "",
        turns: Turns | None = None,
    ) -> None:
        """
        Args:
            most: limit of the body, bytes.
            page: path of the page whose form a browser sent; a refusal leads back to it. Empty for programs.
            turns: limits how many uploads are worked on at once. A turn is taken when the body is complete, so slow
                senders hold none.
        """
        self._page = page
        self._receive = receive
        self._send = send
        self._most = most
        self._length = headers.get("content-length", "")
        self._coding = headers.get("content-encoding", "identity")
        self._expected = "transfer-encoding" in headers or self._length not in {"", "0"}
        self._headers = headers
        self._form: FormRewriter | None = None
        self._idle = IDLE_SECONDS
        self._deadline = time.monotonic() + BODY_SECONDS
        self._bytes = 0
        self._started = False
        self._refused: ImgpipeError | None = None
        self._unreadable = False
        self._turns = turns
        self._places = 0

    def announced(self) -> None:
        """Check what the headers say of the body.

        Raises:
            TooLarge: Content-Length is past the limit.
            Compressed: it has a Content-Encoding. Nothing here decompresses it, so it would look like a broken form.
            UnknownCharset, UnreadableForm: see `FormRewriter.of`.
        """
        if self._length.isdigit() and int(self._length) > self._most:
            raise self._too_large()
        if self._expected and self._coding.casefold() != "identity":
            raise Compressed("Send the body as it is: `Content-Encoding` is not taken here.")
        self._form = FormRewriter.of(self._headers)

    async def receive(self) -> Message:
        """The next piece of the body.

        Raises:
            TooSlow, TooLarge: a limit was passed.
            IncompleteBody, UnreadableForm, UnknownTransferEncoding: see `FormRewriter.rewritten`.
            BackendUnavailable: the server ends, and no longer waits for the rest.
        """
        if self._refused is not None:
            return {"type": "http.disconnect"}
        if not self._expected:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, min(self._idle, self._deadline - time.monotonic()))):
                message = await self._receive()
        except TimeoutError:
            self._refused = TooSlow("The request's body did not arrive in time.")
            raise self._refused from None
        except asyncio.CancelledError:  # by uvicorn, after `timeout_graceful_shutdown`
            self._refused = BackendUnavailable("The server is restarting. Nothing was stored; send it again.")
            raise self._refused from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most:
            self._refused = self._too_large()
            raise self._refused
        self._expected = message.get("more_body", False)
        if self._form is not None and message["type"] == "http.request":
            try:
                message["body"] = self._form.rewritten(message.get("body", b""), last=not self._expected)
            except ImgpipeError as error:
                self._refused = error
                self._unreadable = not self._page
                raise
        if self._turns is not None and not self._expected and message["type"] == "http.request":
            self._places = await self._turns.take(self._bytes)
        return message

    def give_turn_back(self) -> None:
        """Let the next upload begin: this one is answered."""
        if self._turns is not None:
            self._turns.give_back(self._places)
            self._places = 0

    async def send(self, message: Message) -> None:
        """Pass the answer on. Once the body was refused, drop the application's answer: `end` sends the refusal. Only
        a page about a form that cannot be read is as good as ours.

        What is left of the body is then read and thrown away by uvicorn, so that a client that sends all of it before
        it reads sees the reason.
        """
        if self._refused is not None and not self._started and not (self._unreadable and _is_page(message)):
            return
        self._started = True
        await self._send(message)

    async def end(self) -> None:
        """Send the refusal if the body was refused."""
        if self._refused is not None and not self._started:
            await self.refuse(self._refused)

    async def refuse(self, error: ImgpipeError) -> None:
        """Answer with the error, and close the connection of a client that is too slow."""
        answer = self._to_page(error) if self._page else problems.of_error(error)
        if isinstance(error, TooSlow):
            answer.headers["Connection"] = "close"
        await self._send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
        await self._send({"type": "http.response.body", "body": answer.body})

    def _to_page(self, error: ImgpipeError) -> Response:
        """A redirect to the page of the form, through the login when the session has ended."""
        ended = isinstance(error, LoginNeeded)
        target = f"{self._page}?{urlencode({'trouble': NOT_DONE if ended else error.public})}"
        if ended:
            target = f"/login?next={quote(target, safe='/')}"
        return RedirectResponse(target, 303, {"Cache-Control": "no-store"})

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The request is larger than {size_text(self._most)}.")


def _is_page(message: Message) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/html") for name, value in message.get("headers", ()))
