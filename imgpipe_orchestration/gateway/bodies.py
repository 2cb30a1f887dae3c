"""One request's body: measured and timed as it arrives, and refused on the way.

A chunked body without a length so has the same limit as any other. A refusal is raised where the body is read, and
answered like every other error of a route.
"""

import asyncio
import time

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import Message, Receive

from imgpipe_orchestration.errors import BackendUnavailable, Permanent, TooLarge
from imgpipe_orchestration.web.forms import IncompleteBody
from imgpipe_orchestration.web.texts import size_text

BODY_SECONDS = 300.0
"""Time limit for a request body."""
IDLE_SECONDS = 30.0
"""Longest pause within a request body."""
AT_ONCE = 8
"""Uploads that are worked on at once, from the last byte of their body to their answer. Without this limit a thousand
that arrive together are all answered at the end, later than clients wait, and meanwhile they take every thread from
other requests, the event loop's time from the health probes, and memory for all their files."""
_CHARSETS = frozenset({b"utf-8", b"us-ascii", b"iso-8859-1"})
"""Charsets of forms. The parser would take any of Python's: a megabyte of `punycode` takes half a minute."""
_EPILOGUE_BYTES = 1024
"""What may come behind the closing boundary of a form."""


class TooSlow(Permanent):
    """The body did not arrive in time."""

    status = 408


class Compressed(Permanent):
    """The body is compressed."""

    status = 415
    title = "Compressed body"


class UnknownCharset(Permanent):
    """A form whose Content-Type names a charset that is not in `_CHARSETS`."""

    status = 415


class Body:
    """One request's body on its way in.

    Args:
        most: limit of the body, bytes.
        turns: limits how many uploads are worked on at once. A turn is taken when the body is complete, so slow senders
            hold none. None: this is not an upload.
    """

    def __init__(self, receive: Receive, headers: Headers, most: int, turns: asyncio.Semaphore | None = None) -> None:
        length = headers.get("content-length", "")
        self._receive = receive
        self._headers = headers
        self._most = most
        self._announced = int(length) if length.isdigit() else 0
        self._expected = "transfer-encoding" in headers or length not in {"", "0"}
        self._deadline = time.monotonic() + BODY_SECONDS
        self._bytes = 0
        self._tail, self._end = b"", b""
        self._turns = turns
        self._has_turn = False

    async def receive(self) -> Message:
        """The next piece of the body.

        Raises:
            TooSlow, TooLarge: a limit was passed.
            Compressed: it has a Content-Encoding. Nothing here decompresses it, so it would look like a broken form.
            UnknownCharset: see there.
            IncompleteBody: a form without its closing boundary, of which the parser would drop the last part silently.
            BackendUnavailable: the server ends, and no longer waits for the rest.
        """
        if not self._expected:
            return await self._receive()
        if not self._bytes:
            self._check_head()
        try:
            async with asyncio.timeout(max(0.0, min(IDLE_SECONDS, self._deadline - time.monotonic()))):
                message = await self._receive()
        except TimeoutError:
            raise TooSlow("The request's body did not arrive in time.") from None
        except asyncio.CancelledError:  # by uvicorn, after `timeout_graceful_shutdown`
            raise BackendUnavailable("The server is restarting. Nothing was stored; send it again.") from None
        piece = message.get("body", b"")
        self._bytes += len(piece)
        self._check_size(self._bytes)
        self._expected = message.get("more_body", False)
        if message["type"] == "http.request":
            self._tail = (self._tail + piece[-_EPILOGUE_BYTES:])[-_EPILOGUE_BYTES:]
            if not self._expected and self._end not in self._tail:
                raise IncompleteBody
            if not self._expected and self._turns is not None:
                await self._turns.acquire()
                self._has_turn = True
        return message

    def give_turn_back(self) -> None:
        """Let the next upload begin: this one is answered."""
        if self._turns is not None and self._has_turn:
            self._turns.release()

    def _check_head(self) -> None:
        self._check_size(self._announced)
        if self._headers.get("content-encoding", "identity").casefold() != "identity":
            raise Compressed("Send the body as it is: `Content-Encoding` is not taken here.")
        kind, options = parse_options_header(self._headers.get("content-type"))
        if kind == b"multipart/form-data":
            if options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
                raise UnknownCharset(
                    "Send the form's texts in UTF-8; the charset that Content-Type names is not taken."
                )
            self._end = b"--" + options[b"boundary"] + b"--" if b"boundary" in options else b""

    def _check_size(self, size: int) -> None:
        if size > self._most:
            raise TooLarge(f"The request is larger than {size_text(self._most)}.")
