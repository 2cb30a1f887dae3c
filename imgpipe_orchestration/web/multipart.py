"""Checks multipart bodies (RFC 7578) as they arrive, before a route reads them, so that all routes refuse the same.

Refused is what the parser behind this (python-multipart, in Starlette) takes but should not:
1. A body without the closing boundary. That parser hands out a part when it reads the boundary behind it, so it drops
   the last part of such a body silently.
2. Texts in unusual charsets. It decodes them by any of Python's codecs: a megabyte of `punycode` takes half a minute.
3. Parts that say that they are base64 or quoted-printable, as mail programs write them. It would take the text for the
   file.
4. Files whose name is only there as `filename*=UTF-8''...` (RFC 5987), as HTTP libraries wrote it before 2019: it would
   take them for texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from imgpipe_orchestration.errors import BadInput, Permanent
from imgpipe_orchestration.web.names import clean_name

if TYPE_CHECKING:
    from starlette.datastructures import Headers

_CHARSETS = frozenset({"utf-8", "us-ascii", "iso-8859-1"})
"""Charsets that clients name; browsers name none (RFC 7578, section 5.1.2)."""
_AS_IT_IS = frozenset({"", "7bit", "8bit", "binary", "identity"})


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


class UnknownCharset(Permanent):
    """A form whose Content-Type names a charset that is not in `_CHARSETS`."""

    status = 415
    title = "Unknown charset"


class UnknownTransferEncoding(Permanent):
    """A part with a Content-Transfer-Encoding."""

    status = 415
    title = "Unknown transfer encoding"


class FormCheck:
    """Checks one body, piece by piece."""

    def __init__(self, boundary: bytes) -> None:
        self._name, self._value = bytearray(), bytearray()
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._on_header_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _unreadable(error) from error

    @classmethod
    def of(cls, headers: Headers) -> FormCheck | None:
        """None when the body is no multipart form, or one without a boundary, which its reader refuses.

        Raises:
            UnknownCharset: Content-Type names a charset that is not in `_CHARSETS`.
            UnreadableForm: the boundary is too long.
        """
        kind, options = parse_options_header(headers.get("content-type"))
        if kind != b"multipart/form-data":
            return None
        if options.get(b"charset", b"utf-8").decode("latin-1").lower() not in _CHARSETS:
            raise UnknownCharset("Send the form's texts in UTF-8; the charset that Content-Type names is not taken.")
        boundary = options.get(b"boundary")
        return cls(boundary) if boundary else None

    def check(self, piece: bytes, *, last: bool) -> None:
        """Look at the next piece of the body.

        Raises:
            IncompleteBody: it was the last one, and the closing boundary has not come.
            UnreadableForm, UnknownTransferEncoding: the body is broken, or a part is encoded.
        """
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _unreadable(error) from error
        if last and not self._ended:
            raise IncompleteBody

    def _on_header_end(self) -> None:
        encoding = self._value.decode("latin-1").strip().lower()
        if self._name.lower() == b"content-transfer-encoding" and encoding not in _AS_IT_IS:
            named = clean_name(encoding)[:40]
            raise UnknownTransferEncoding(f"A part of the form is encoded as {named!r}. Send it as it is.")
        if b"filename*" in (lower := self._value.lower()) and b"filename=" not in lower:
            raise UnreadableForm('Write the name of a file as filename="...", in UTF-8 (RFC 7578, section 4.2).')
        self._name, self._value = bytearray(), bytearray()

    def _on_end(self) -> None:
        self._ended = True


def _unreadable(error: Exception) -> UnreadableForm:
    return UnreadableForm("The form cannot be read, and nothing was stored: invalid multipart data.", detail=str(error))
