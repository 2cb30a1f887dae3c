"""Reads forms with files: what their clients call the files, and how a form is refused."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from email.message import Message
from email.utils import collapse_rfc2231_value

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.web.texts import clean_name


class IncompleteBody(BadInput):
    """A form that ends before its closing boundary."""

    status = 400

    def __init__(self) -> None:
        super().__init__(
            "The body is incomplete: the form ends before its closing boundary. Nothing was stored; send it again."
        )


class UnreadableForm(BadInput):
    """A form that is broken, or has more files or fields than are taken."""

    status = 400


_PREAMBLE_BYTES = 64 * 1024
"""What may come before the first boundary of a form (RFC 2046, section 5.1.1). It is dropped."""


class _Parser(MultiPartParser):
    """Starlette's, which also reads names of files as `filename*=UTF-8''caf%C3%A9.jpg` (RFC 5987). They win over plain
    ones, which then are makeshift. Parts in base64 or the like it would take as they are: they are refused."""

    def on_headers_finished(self) -> None:
        part = self._current_part
        encoding = dict(part.item_headers).get(b"content-transfer-encoding", b"binary").strip().lower()
        if encoding not in {b"binary", b"8bit", b"7bit"}:
            raise MultiPartException(f"a part is encoded as {encoding.decode('latin-1')!r:.40}; send it as it is.")
        if part.content_disposition and b"filename*" in part.content_disposition.lower():
            part.content_disposition = _plain_disposition(part.content_disposition)
        super().on_headers_finished()


def _plain_disposition(value: bytes) -> bytes:
    """A Content-Disposition with the name of the file as browsers write it."""
    read = Message()
    read["content-disposition"] = value.decode("latin-1")
    given = {key.lower(): text for key, text in read.get_params([], "content-disposition")}  # extended ones are last
    name, file = (clean_name(collapse_rfc2231_value(given.get(key, ""))) for key in ("name", "filename"))
    file = file.replace('"', "%22")
    return f'form-data; name="{name}"; filename="{file}"'.encode()


async def _from_first_boundary(request: Request) -> AsyncGenerator[bytes]:
    _, options = parse_options_header(request.headers["content-type"])
    begun, head = False, b""
    async for piece in request.stream():
        if begun:
            yield piece
            continue
        head += piece
        at = (b"\r\n" + head).find(b"\r\n--" + options.get(b"boundary", b""))
        begun = at >= 0 or len(head) > _PREAMBLE_BYTES  # without a boundary the parser says what is wrong
        if begun:
            yield head[max(at, 0) :]
    if not begun:
        yield head


@asynccontextmanager
async def form_in(request: Request, *, files: int, fields: int) -> AsyncIterator[FormData]:
    """The form in a request's body; its files are closed at the end.

    Raises:
        UnreadableForm: broken, or with more files or other fields than that.
    """
    try:
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            form = await _Parser(
                request.headers, _from_first_boundary(request), max_files=files, max_fields=fields
            ).parse()
        else:
            form = await request.form(max_fields=fields)
    except (MultiPartException, HTTPException) as error:
        said = error.message if isinstance(error, MultiPartException) else error.detail
        raise UnreadableForm(f"The form cannot be read, and nothing was stored: {said}") from error
    try:
        yield form
    finally:
        await form.close()


def name_of(file: UploadFile) -> str:
    """The file's name as it was on its owner's disk, cleaned; empty when it came without one.

    Browsers and curl write a quotation mark in it as %22 (HTML, "multipart/form-data encoding algorithm") and leave a
    percent sign as it is, so a name that has %22 of itself cannot be told from it.
    """
    return clean_name((file.filename or "").replace("%22", '"'))
