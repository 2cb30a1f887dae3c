"""The media pipeline's HTTP routes: profiles with uploads, temp files, the API for media workers, and the search."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile

from imgpipe_orchestration.errors import BackendUnavailable, BadInput, NotFound, Unauthenticated
from imgpipe_orchestration.media import analyses, model, pending, search, store, uploads
from imgpipe_orchestration.media.analyses import Share
from imgpipe_orchestration.media.model import DataType, MediaStatus
from imgpipe_orchestration.media.profiles import profile
from imgpipe_orchestration.media.reports import clean_up, complete
from imgpipe_orchestration.media.search import Filters, Found
from imgpipe_orchestration.media.serving.signing import url_for_owner
from imgpipe_orchestration.moderation.model import HELD, Held
from imgpipe_orchestration.partners.main_api import HEADER, verify
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.deletions import Deleted
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.access import MEDIA_READER
from imgpipe_orchestration.web.auth import Credentials, ServicesDep, User, allowed, caller_of
from imgpipe_orchestration.web.forms import form_in, name_of
from imgpipe_orchestration.web.values import Colour, MediaId, RowId
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(tags=["media"])

_FORM = {
    "type": "object",
    "properties": {name: {"type": "string", "format": "binary"} for name in model.FIELDS}
    | {name: {"type": "string"} for name in uploads.PROFILE_TEXTS},
}
"""The form for OpenAPI. It is parsed by our own code, so that a file that is too large is refused before it is read."""


class CompleteAnswer(BaseModel):
    success: bool = True
    imageId: int
    media_id: str
    status: str
    smart_url_preview: str


# --- users -----------------------------------------------------------------------------------------------------------


_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


async def form_of(request: Request, services: ServicesDep) -> tuple[list[uploads.Upload], dict[str, str]]:
    """The files and texts of a multipart request.

    Raises:
        BadInput: not a form, or unknown fields.
    """
    limit = services.settings.upload_max_bytes
    files: list[uploads.Upload] = []
    texts: dict[str, str] = {}
    async with form_in(request, files=len(model.FIELDS), fields=50) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if not value.filename and not value.size:
                    continue  # an empty file field of a browser's form
                field = uploads.field_named(name)
                files.append(uploads.Upload(field, name_of(value) or name, await value.read(limit + 1)))
            elif name in uploads.PROFILE_TEXTS:
                texts[name] = value
            elif name in model.FIELDS and value:
                raise BadInput(f"{name} came as text; send a file, with a `filename`.", field=name)
    if not files and not texts:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
        if kind and kind not in _FORMS:
            raise BadInput(f"Send a form (multipart/form-data), not {kind}.")
        known = ", ".join((*model.FIELDS, *uploads.PROFILE_TEXTS))
        raise BadInput(f"The form has none of the fields that can be changed: {known}.")
    return files, texts


Form = Annotated[tuple[list[uploads.Upload], dict[str, str]], Depends(form_of)]


@router.patch("/users/me", openapi_extra={"requestBody": {"content": {"multipart/form-data": {"schema": _FORM}}}})
def update_me(user: User, form: Form, services: ServicesDep) -> dict[str, Any]:
    """Change profile texts and upload images, several at once. All of it is accepted, or nothing."""
    files, texts = form
    accepted = uploads.accept(services, user, files, texts)
    images = [
        {"id": one.pending_id, "field": one.field, "image_path": one.image_path, "status": "pending"}
        for one in accepted
    ]
    try:
        shown = profile(services, user)
    except BackendUnavailable:
        # The upload is accepted nonetheless; after an error the user would send it again.
        shown = {"id": user, **texts}
    return {"success": True, **shown, "images": images}


@router.get("/users/me")
def me(user: User, services: ServicesDep) -> dict[str, Any]:
    """The profile; images are temp URLs until they are processed, smart URLs from then on."""
    return profile(services, user)


@router.get("/temp_images/{folder}/{name}", response_class=Response, responses={200: {"content": {"image/*": {}}}})
def temp_image(request: Request, folder: str, name: str, services: ServicesDep, credentials: Credentials) -> Response:
    """An upload as it came, until its URL is replaced; that of a private or held image for media workers only."""
    path = f"/temp_images/{folder}/{name}"
    try:
        key = model.temp_key(path)
    except BadInput as error:
        raise NotFound("There is no such temp image.") from error
    with transaction(services.engine) as connection:
        if deletions.was_at(connection, services.settings.digest_keys, path):
            raise Deleted("This image was deleted.")
        access = connection.execute(store.PATH_ACCESS, {"path": path}).one()
    held = access.held or (access.held is None and services.settings.moderation == "hold")
    given = credentials.credentials if credentials else None
    if (held or access.private) and caller_of(request, given, services, MEDIA_READER) is None:
        if held:
            raise Held(HELD)
        raise Unauthenticated("The image is private: send `Authorization: Bearer <MEDIA_API_KEY>`.")
    try:
        data, head = services.media_bucket.get_with_head(key)
    except NotFound as error:
        raise NotFound("There is no such temp image; once processed, it has a smart URL in the profile.") from error
    # The type was determined from the content at upload; browsers must not guess another.
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Disposition": "inline"}
    return Response(data, media_type=head.content_type, headers=headers)


# --- media workers ---------------------------------------------------------------------------------------------------

MOST_LISTED = 10_000
"""Uploads in one listing: every worker asks for one after an outage, and an upload takes a kilobyte of memory."""

workers = APIRouter(prefix="/api/media", dependencies=[Depends(allowed)])


@workers.get("/pending/all")
def pending_all(services: ServicesDep, limit: Annotated[int, Query(ge=1)] = MOST_LISTED) -> dict[str, Any]:
    """The uploads that wait, oldest first, and how many there are (`total`). At most 10,000 are listed; a worker asks
    again once it has processed some."""
    most = min(limit, MOST_LISTED)
    with transaction(services.engine) as connection:
        waiting = pending.waiting(store.deleted_uploads(connection))
    with transaction(services.pending_engine) as connection:
        images = pending.find(connection, waiting, limit=most)
        total = len(images) if len(images) < most else pending.count(connection, waiting)
    with transaction(services.engine) as connection:  # finished ones, too, that somebody set back to `pending`
        deleted = store.deleted_uploads(connection, [image.id for image in images])
    listed = [
        {
            "id": image.id,
            "user_id": image.user_id,
            "image_path": image.image_path,
            "original_name": image.original_name,
            "mime_type": image.mime_type,
            "status": image.status,
            "created_at": image.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for image in images
        if image.id not in deleted
    ]
    return {"images": listed, "total": total - len(deleted)}


async def signed(request: Request, services: ServicesDep) -> None:
    """Verify a report's signature if it has one; the specification's curl line has none.

    Raises:
        Unauthenticated: the signature is wrong or too old.
    """
    if HEADER in request.headers:
        verify(request.headers[HEADER], await request.body(), services.settings.main_api_key)


@workers.post("/complete/{image_id}", dependencies=[Depends(signed)])
def complete_image(image_id: RowId, body: Annotated[dict[str, Any], Body()], services: ServicesDep) -> CompleteAnswer:
    """Report an upload as processed, with the short body (`media_id`) or the rich one. May be repeated."""
    image = complete(services, image_id, body)
    media_id = str(image.media_id)
    preview = f"{services.settings.smart_media_base_url}/{media_id}"
    return CompleteAnswer(imageId=image.id, media_id=media_id, status=image.status, smart_url_preview=preview)


@workers.delete("/cleanup/{image_id}")
def clean_up_image(image_id: RowId, services: ServicesDep) -> dict[str, Any]:
    """Report an upload as failed; its temp file is removed."""
    clean_up(services, image_id)
    return {"success": True, "message": "Image marked as failed and temp file cleaned up"}


@workers.get("/analysis/{media_id}")
def analysis(media_id: Annotated[str, Path(max_length=64)], services: ServicesDep) -> dict[str, Any]:
    """What the AI analysis and our own measurements found; of an image that another worker made, what it reported."""
    return {"success": True, "media_id": media_id, **analyses.analysis_of(services, media_id)}


class Focus(BaseModel, extra="forbid"):
    """What a crop must keep, in shares of width and height from the top left; null leaves it to the analysis."""

    box: tuple[Share, Share, Share, Share] | None


@workers.put("/focus/{media_id}", status_code=202)
def set_focus(media_id: MediaId, body: Focus, services: ServicesDep) -> dict[str, Any]:
    """Set by hand what crops keep; the variants are made again and the old ones are served until then."""
    analyses.set_focus(services, media_id, body.box)
    return {"success": True, "media_id": str(media_id), "box": body.box}


# --- the search ------------------------------------------------------------------------------------------------------


class SearchAnswer(BaseModel):
    success: bool = True
    images: list[Found]
    total: int
    note: str = Field("", description="What the search had to do without.")
    next: int | None = Field(None, description="Pass it as `before` for the page that follows a plain list.")


class DuplicatesAnswer(BaseModel):
    """Three kinds that are not mixed: an image is listed in the strictest that fits."""

    success: bool = True
    media_id: str
    identical_bytes: list[Found]
    identical_pixels: list[Found]
    similar: list[Found]


@workers.get("/search")
def search_media(
    services: ServicesDep,
    text: Annotated[str, Query(max_length=500, description="Words; quotes and - work as in web searches.")] = "",
    color: Annotated[Colour, Query(description="rrggbb, with or without #.")] = "",
    similar_to: Annotated[RowId | None, Query(description="A media id.")] = None,
    status: MediaStatus | None = None,
    data_type: DataType | None = None,
    user_id: RowId | None = None,
    before: RowId | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 60,
) -> SearchAnswer:
    """Images by text, by colour or by likeness, best first; with none of these the newest. One of them at a time."""
    measures = sum((bool(text.strip()), bool(color), similar_to is not None))
    if measures > 1:
        raise BadInput("Search by text, color or similar_to, one at a time.", field="text")
    if measures and before is not None:
        raise BadInput("Only the newest images have a next page; a search gives its best ones.", field="before")
    if "\0" in text:
        raise BadInput("text contains NUL.", field="text")
    wanted = Filters(status, data_type, user_id)
    found, note = search.find(
        services, wanted, words=text.strip(), colour=color, similar_to=similar_to, before=before, limit=limit
    )
    further = found[-1].id if not measures and len(found) == limit else None
    _link(services, found)
    return SearchAnswer(images=found, total=len(found), note=note, next=further)


@workers.get("/duplicates/{media_id}")
def duplicates_of(media_id: MediaId, services: ServicesDep) -> DuplicatesAnswer:
    """Other images that are the same: identical bytes, identical pixels, or similar with their distance."""
    with transaction(services.engine) as connection:
        found = search.duplicates(connection, media_id)
    for images in found.values():
        _link(services, images)
    return DuplicatesAnswer(media_id=str(media_id), **found)


def _link(services: Services, found: list[Found]) -> None:
    for one in found:
        one.url = url_for_owner(services.settings, one.id, private=one.private)


router.include_router(workers)
