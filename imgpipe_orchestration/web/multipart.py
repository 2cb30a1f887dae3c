"""Multipart bodies as mail programs and older HTTP libraries write them, rewritten into what browsers send (RFC 7578).

Every form passes through here before a route reads it, so that all routes take the same. Taken are:
1. Text before the first boundary (RFC 2046, section 5.1.1), which is dropped.
2. Names of files as `filename*=UTF-8''caf%C3%A9.jpg` (RFC 5987), also in pieces (`filename*0*=`, RFC 2231). They win
   over a plain `filename`, which then is a makeshift.

Refused are bodies that the parser behind this (python-multipart, in Starlette) takes but should not:
3. A body without the closing boundary. That parser hands out a part when it reads the boundary behind it, so it drops
   the last part of such a body silently.
4. Texts in unusual charsets. It decodes them by any of Python's codecs: a megabyte of `punycode` takes half a minute.
5. Parts with a Content-Transfer-Encoding, which it would hand out as they are.
"""

from __future__ import annotations

import re
from email.message import Message
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


class FormRewriter:
    """Rewrites one body, piece by piece."""

    def __init__(self, boundary: bytes, charset: str) -> None:
        self._border, self._charset = b"--" + boundary, charset
        self._first = re.compile(rb"\r\n" + re.escape(self._border) + rb"(?=\r\n|--)")
        self._before: bytes | None = b"\r\n"
        self._out = bytearray()
        self._headers: list[tuple[bytes, bytes]] = []
        self._name, self._value = bytearray(), bytearray()
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _unreadable(error) from error

    @classmethod
    def of(cls, headers: Headers) -> FormRewriter | None:
        """None when the body is no multipart form, or one without a boundary, which its reader refuses.

        Raises:
            UnknownCharset: Content-Type names a charset that is not in `_CHARSETS`.
            UnreadableForm: the boundary is too long.
        """
        kind, options = parse_options_header(headers.get("content-type"))
        if kind != b"multipart/form-data":
            return None
        charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
        if charset not in _CHARSETS:
            raise UnknownCharset("Send the form's texts in UTF-8; the charset that Content-Type names is not taken.")
        boundary = options.get(b"boundary")
        return cls(boundary, charset) if boundary else None

    def rewritten(self, piece: bytes, *, last: bool) -> bytes:
        """What the next piece of the body becomes.

        Raises:
            IncompleteBody: it was the last one, and the closing boundary has not come.
            UnreadableForm, UnknownTransferEncoding: the body is broken, or a part is encoded in another way.
        """
        piece = self._without_preamble(piece)
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _unreadable(error) from error
        if last and not self._ended:
            raise IncompleteBody
        out = bytes(self._out)
        self._out.clear()
        return out

    def _without_preamble(self, piece: bytes) -> bytes:
        if self._before is None:
            return piece
        window = self._before + piece
        found = self._first.search(window)
        if found is None:
            self._before = window[-len(self._border) - 3 :]
            return b""
        self._before = None
        return window[found.start() + 2 :]

    def _on_header_end(self) -> None:
        self._headers.append((bytes(self._name).lower(), bytes(self._value)))
        self._name, self._value = bytearray(), bytearray()

    def _on_headers_finished(self) -> None:
        given = dict(self._headers)
        encoding = given.get(b"content-transfer-encoding", b"").decode("latin-1").strip().lower()
        if encoding not in _AS_IT_IS:
            raise UnknownTransferEncoding(
                f"A part of the form has the Content-Transfer-Encoding {clean_name(encoding)[:40]!r}. Send it as it is."
            )
        self._out += self._border + b"\r\n"
        for name, value in self._headers:
            plain = _plain_disposition(value, self._charset) if name == b"content-disposition" else value
            self._out += name + b": " + plain + b"\r\n"
        self._out += b"\r\n"
        self._headers = []

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._out += data[start:end]

    def _on_part_end(self) -> None:
        self._out += b"\r\n"

    def _on_end(self) -> None:
        self._ended = True
        self._out += self._border + b"--\r\n"


def _unreadable(error: Exception) -> UnreadableForm:
    return UnreadableForm("The form cannot be read, and nothing was stored: invalid multipart data.", detail=str(error))


def _plain_disposition(value: bytes, charset: str) -> bytes:
    """A Content-Disposition with the name of the file as browsers write it."""
    if b"filename*" not in value.lower():
        return value
    read = Message()
    read["content-disposition"] = value.decode("latin-1")
    given = [(str(key).lower(), text) for key, text in read.get_params([], "content-disposition")[1:]]
    names = [_decoded(text, charset) for key, text in given if key == "name"]
    files = [_decoded(text, charset) for key, text in given if key == "filename"]
    if not names:
        return value  # its reader says what is missing
    written = f'form-data; name="{_quoted(names[-1])}"'
    if files:
        # The extended ones are last. One that cannot be read is empty.
        best = next((name for name in reversed(files) if name), "")
        written += f'; filename="{_quoted(best)}"'
    return written.encode(charset, "replace")


def _decoded(given: str | tuple[str | None, str | None, str], charset: str) -> str:
    """A parameter as the standard library hands it out: bytes as Latin-1, with the charset of an extended one. All of
    Python's charsets will do here, as a head is short. Empty when it cannot be decoded."""
    text, own = (given[2], given[0]) if isinstance(given, tuple) else (given, None)
    try:
        return text.encode("latin-1").decode(own or charset)
    except (LookupError, UnicodeError):
        return ""


def _quoted(name: str) -> str:
    """With quotation marks as HTML has them ("multipart/form-data encoding algorithm"), without folders of Windows."""
    return clean_name(name).rpartition("\\")[2].replace('"', "%22")
