"""Multipart forms that break off.

The parser hands out a part once the boundary behind it has come. It accepts a body that lacks the closing boundary, and
then drops the last part without a word (RFC 2046, section 5.1.1: the closing delimiter follows the last part).
"""

from __future__ import annotations

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from imgpipe_orchestration.errors import BadInput


class IncompleteBody(BadInput):
    """A form that ends before its closing boundary."""

    status = 400
    title = "Incomplete body"

    def __init__(self) -> None:
        super().__init__(
            "The body is incomplete: the form ends before its closing boundary. Nothing was stored; send it again."
        )


class ClosingBoundary:
    """Looks out for the end of a form while its body passes by."""

    def __init__(self, delimiter: bytes) -> None:
        self._wanted = b"\r\n--" + delimiter + b"--"
        self._tail = b"\r\n"
        self.seen = False

    @classmethod
    def of(cls, headers: Headers) -> ClosingBoundary | None:
        """None: the body is no form with parts, or its parser will say that it names no boundary."""
        kind, options = parse_options_header(headers.get("content-type"))
        delimiter = options.get(b"boundary") if kind == b"multipart/form-data" else None
        return cls(delimiter) if delimiter else None

    def see(self, piece: bytes) -> None:
        """The next bytes of the body."""
        if not self.seen:
            window = self._tail + piece
            self.seen = self._wanted in window
            self._tail = window[1 - len(self._wanted) :]
