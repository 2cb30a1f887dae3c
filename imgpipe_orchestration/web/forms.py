"""Reads forms, which `multipart` has rewritten before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from imgpipe_orchestration.web.multipart import UnreadableForm
from imgpipe_orchestration.web.names import clean_name


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
    """The file's name as it was on its owner's disk, cleaned; empty when it came without one.

    Browsers and curl write a quotation mark in it as %22 (HTML, "multipart/form-data encoding algorithm") and leave a
    percent sign as it is, so a name that has %22 of itself cannot be told from it.
    """
    return clean_name((file.filename or "").replace("%22", '"'))
