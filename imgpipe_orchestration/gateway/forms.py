"""What the parser of multipart forms takes and we do not: forms that break off, and those in other charsets.

The parser hands out a part once the boundary behind it has come. It accepts a body that lacks the closing boundary, and
then drops the last part without a word (RFC 2046, section 5.1.1: the closing delimiter follows the last part). And it
decodes texts by whichever of Python's codecs the head names: a megabyte of `punycode` takes half a minute.
"""

from __future__ import annotations

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from imgpipe_orchestration.errors import BadInput, Permanent

_CHARSETS = frozenset({b"utf-8", b"us-ascii", b"iso-8859-1"})
"""What clients name that name one; browsers do not (RFC 7578, section 5.1.2)."""


class IncompleteBody(BadInput):
    """A form that ends before its closing boundary."""

    status = 400
    title = "Incomplete body"

    def __init__(self) -> None:
        super().__init__(
            "The body is incomplete: the form ends before its closing boundary. Nothing was stored; send it again."
        )


class UnknownCharset(Permanent):
    """A form whose texts would have to be decoded from something unusual."""

    status = 415
    title = "Unknown charset"


class ClosingBoundary:
    """Looks out for the end of a form while its body passes by."""

    def __init__(self, delimiter: bytes) -> None:
        self._wanted = b"\r\n--" + delimiter + b"--"
        self._tail = b"\r\n"
        self.seen = False

    @classmethod
    def of(cls, headers: Headers) -> ClosingBoundary | None:
        """None: the body is no form with parts, or its parser will say that it names no boundary.

        Raises:
            UnknownCharset: the parser would decode its texts from another charset than those that clients use.
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
