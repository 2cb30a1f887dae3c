"""The upload page: several photographs at once, each followed until it is ready."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Request, Response, UploadFile
from fastapi.responses import JSONResponse

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.gateway.pages import formats
from imgpipe_orchestration.gateway.pages.frame import PageRoute, page
from imgpipe_orchestration.gateway.pages.media import uploaded
from imgpipe_orchestration.gateway.pages.pipelines import about
from imgpipe_orchestration.gateway.session import Acting, Operator
from imgpipe_orchestration.imaging.formats import READ_HERE
from imgpipe_orchestration.media import uploads
from imgpipe_orchestration.media.model import FIELDS
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.web.forms import name_of
from imgpipe_orchestration.web.values import RowId, Written

router = APIRouter(include_in_schema=False, route_class=PageRoute)

NO_STORE = {"Cache-Control": "no-store"}
MOST_FOLLOWED = 200
"""Uploads whose states are asked for at once."""
Numbers = Annotated[str, Written(r"^[0-9]{1,18}(,[0-9]{1,18})*$", "must be numbers with commas between them")]


@router.get("/upload", response_class=Response)
def form(request: Request, services: ServicesDep, session: Operator) -> Response:
    return page(
        request,
        "upload.html",
        session,
        about=about("media"),
        fields=list(FIELDS.values()),
        limit=services.settings.upload_max_bytes,
        formats=READ_HERE,
        most=MOST_FOLLOWED,
    )


@router.post("/upload", response_class=Response)
def take(
    services: ServicesDep, _: Acting, file: Annotated[UploadFile, File()], field: str = "profile_image", user: RowId = 1
) -> Response:
    """One file for one user, as that user's `PATCH /users/me` would take it."""
    data = file.file.read(services.settings.upload_max_bytes + 1)
    one = uploads.Upload(uploads.field_named(field), name_of(file) or "unnamed", data)
    try:
        (accepted,) = uploads.accept(services, user, [one], {})
    except (BadImage, TooLarge) as error:
        # The API's messages begin with the field; the page shows the message beside the file's name.
        raise type(error)(formats.sentence(error.public.removeprefix(f"{field}: "))) from error
    return JSONResponse({"id": accepted.pending_id, "image_path": accepted.image_path}, 202, NO_STORE)


@router.get("/upload/state", response_class=Response)
def states(services: ServicesDep, _: Operator, ids: Numbers) -> Response:
    wanted = [int(one) for one in ids.split(",")][:MOST_FOLLOWED]
    return JSONResponse({str(key): value for key, value in uploaded(services, wanted).items()}, headers=NO_STORE)
