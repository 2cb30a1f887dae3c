"""Reads multipart forms, and refuses those that the parser (python-multipart, Starlette) accepts but should not.

1. A body without the closing boundary (RFC 2046, section 5.1.1). The parser hands out a part when it reads the boundary
   behind it, so it drops the last part of such a body silently.
2. Texts in unusual charsets. The parser decodes them by any of Python's codecs: a megabyte of `punycode` takes half a
   minute.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from imgpipe_orchestration.errors import BadInput, Permanent

_CHARSETS = frozenset({b"utf-8", b"us-ascii", b"iso-8859-1"})
"""Charsets that clients name in Content-Type; browsers name none (RFC 7578, section 5.1.2)."""


class IncompleteBody(BadInput):
    """A form that ends before its closing boundary."""

    status = 400
    title = "Incomplete body"

    def __init__(self) -> None:
        super().__init__(
            "The body is incomplete: the form ends before its closing boundary. Nothing was stored; send it again."
        )


class UnreadableForm(BadInput):
    """A form that is broken, or has more files or fields than are taken."""

    status = 400
    title = "Unreadable form"


@asynccontextmanager
async def form_in(request: Request, *, files: int, fields: int) -> AsyncIterator[FormData]:
    """The form in a request's body; its files are closed at the end.

    Raises:
        UnreadableForm: broken, or with more files or other fields than that.
    """
    try:
        form = await request.form(max_files=files, max_fields=fields)
    except HTTPException as error:  # Starlette's own, which says no more than what its parser stumbled over
        raise UnreadableForm(f"The form cannot be read, and nothing was stored: {error.detail}") from error
    try:
        yield form
    finally:
        await form.close()


def name_of(file: UploadFile) -> str:
    """The file's name as it was on its owner's disk; empty when it came without one.

    Browsers and curl write a quotation mark in it as %22 (HTML, "multipart/form-data encoding algorithm") and leave a
    percent sign as it is, so a name that has %22 of itself cannot be told from it.
    """
    return (file.filename or "").replace("%22", '"')


class UnknownCharset(Permanent):
    """A form whose Content-Type names a charset that is not in `_CHARSETS`."""

    status = 415
    title = "Unknown charset"


class ClosingBoundary:
    """Whether the closing boundary of a form has passed by; `see` is called with each piece of the body."""

    def __init__(self, delimiter: bytes) -> None:
        self._wanted = b"\r\n--" + delimiter + b"--"
        self._tail = b"\r\n"
        self.seen = False

    @classmethod
    def of(cls, headers: Headers) -> ClosingBoundary | None:
        """None when the body is no multipart form, or one without a boundary, which its parser refuses.

        Raises:
            UnknownCharset: Content-Type names a charset that is not in `_CHARSETS`.
        """
        kind, options = parse_options_header(headers.get("content-type"))
        if kind != b"multipart/form-data":
            return None
        if options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
            raise UnknownCharset("Send the form's texts in UTF-8; the charset that Content-Type names is not taken.")
        delimiter = options.get(b"boundary")
        return cls(delimiter) if delimiter else None

    def see(self, piece: bytes) -> None:
        """The next bytes of the body."""
        if not self.seen:
            window = self._tail + piece
            self.seen = self._wanted in window
            self._tail = window[1 - len(self._wanted) :]
