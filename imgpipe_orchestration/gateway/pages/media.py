"""The media pages: a gallery with search and filters, one page for each image, and the upload of several photographs at
once, each followed until it is ready."""

from itertools import product
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, File, Form, Query, Response, UploadFile
from fastapi.responses import JSONResponse

from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.errors import BackendUnavailable, BadImage, BadInput, NotFound, TooLarge
from imgpipe_orchestration.gateway.components.routes import info_of
from imgpipe_orchestration.gateway.pages import correcting
from imgpipe_orchestration.gateway.pages.filters import sentence
from imgpipe_orchestration.gateway.pages.frame import Number, Page, back_to
from imgpipe_orchestration.gateway.pages.subjects import about_queue, advice
from imgpipe_orchestration.gateway.session import Acting, Operator
from imgpipe_orchestration.imaging.formats import MIME_OF, READ_HERE
from imgpipe_orchestration.imaging.recipe import MEDIA_SIZES
from imgpipe_orchestration.media import analyses, describing, pending, search, store, uploads
from imgpipe_orchestration.media.analyses import Correction, public_analysis, standins_of
from imgpipe_orchestration.media.model import FIELDS, DataType, MediaStatus, PendingStatus, StepState
from imgpipe_orchestration.media.search import Filters, Found
from imgpipe_orchestration.media.serving import callers, signing
from imgpipe_orchestration.media.serving.decision import SIZES
from imgpipe_orchestration.media.store import MediaFile, StoredVariant, manifest_of
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.partners.json_text import problem_in
from imgpipe_orchestration.storage.claims import State
from imgpipe_orchestration.storage.queues import WITHDRAWN
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.web.forms import name_of
from imgpipe_orchestration.web.values import Colour, RowId, Written
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(include_in_schema=False)

PER_PAGE = 60
URLS = "replace_urls"
"""Shown as the last step; it is not in the image's checklist."""
NO_STORE = {"Cache-Control": "no-store"}
MOST_FOLLOWED = 200
"""Uploads whose states are asked for at once."""
Numbers = Annotated[str, Written(r"^[0-9]{1,18}(,[0-9]{1,18})*$", "must be numbers with commas between them")]


@router.get("/media", response_class=Response)
def gallery(
    page: Page,
    services: ServicesDep,
    q: Annotated[str, Query(max_length=500)] = "",
    color: Colour = "",
    like: Number = "",
    status: str = "",
    type: str = "",
    user: Number = "",
    before: Number = "",
) -> Response:
    wanted = filters(status, type, user)
    words = q.replace("\0", "").strip()
    found, note = search.find(
        services,
        wanted,
        words=words,
        colour=color,
        similar_to=int(like) if like else None,
        before=int(before) if before else None,
        limit=PER_PAGE + 1,
    )
    failed = [one.id for one in found if one.status is MediaStatus.FAILED]
    searched = bool(words or color or like)
    more = str(found[PER_PAGE - 1].id) if not searched and len(found) > PER_PAGE else ""
    asked = {"q": words, "color": color, "like": like, "status": status, "type": type, "user": user}
    return page(
        "media.html",
        images=[(one, _distance(one), signature(services, one.id, private=one.private)) for one in found[:PER_PAGE]],
        dropped={one for one in failed if services.claims.find(store.MEDIA, one).error_code == WITHDRAWN},
        asked=asked,
        working=any(one.status not in (MediaStatus.COMPLETED, MediaStatus.FAILED) for one in found),
        note=note,
        searched=searched,
        most=PER_PAGE,
        filtered=any((status, type, user)),
        filter=urlencode({name: asked[name] for name in ("status", "type", "user") if asked[name]}),
        more=urlencode({**{k: v for k, v in asked.items() if v}, "before": more}) if more else "",
        statuses=list(MediaStatus),
        types=list(DataType),
    )


@router.get("/media/{media_id}", response_class=Response)
def image(page: Page, services: ServicesDep, media_id: RowId) -> Response:
    with transaction(services.engine) as connection:
        media = store.media_file(connection, media_id)
        variants = manifest_of(connection, media_id)
        analysis = store.analysis(connection, media_id)
        copies = search.duplicates(connection, media_id, limit=24)
        asking_for = callers.of_image(connection, media_id)
        cost, unpriced = spending.of_item(connection, "media", f"media/{media_id}")
        standins = standins_of(connection, media_id)
        opinions = describing.second_opinions(connection, media_id)
        verdict = verdicts.shown(connection, "media", media_id)
    shown = public_analysis(analysis, background_removed=bool(media.background_removed)) if analysis else None
    history, item = services.claims.history(store.MEDIA, media_id), services.claims.find(store.MEDIA, media_id)
    steps, info = _steps(services, media), info_of(services, media)
    failed = media.status is MediaStatus.FAILED
    ended = failed or (media.status is MediaStatus.COMPLETED and StepState.PENDING not in steps.values())
    remaking = services.claims.find(store.REMAKE_VARIANTS, media_id).state in {State.WAITING, State.CLAIMED}
    return page(
        "image.html",
        media=media,
        trace=tracing.id_of(media.trace),
        made=_made(variants),
        crops=[size.name for size in MEDIA_SIZES if size.fit == "crop" and size.name in info.sizes],
        remaking=remaking,
        working=remaking or not ended,
        formats=[name for name in MIME_OF if any(variant.format == name for variant in variants)],
        total={"count": len(variants), "bytes": sum(variant.bytes for variant in variants)},
        steps=steps,
        analysis=shown,
        fields=correcting.fields_of(shown) if shown else [],
        copies=copies,
        callers=asking_for,
        history=history,
        advice=advice(item.error_code),
        standins=standins,
        opinions=opinions,
        verdict=verdict,
        cost=cost,
        unpriced=unpriced,
        info=info,
        smart=f"{services.settings.smart_media_base_url}/{media_id}",
        failed=failed,
        dropped=failed and item.error_code == WITHDRAWN,
        signature=signature(services, media_id, private=media.private),
    )


@router.post("/media/{media_id}/correct", response_class=Response)
def correct(
    services: ServicesDep,
    session: Acting,
    media_id: RowId,
    field: Annotated[str, Form(max_length=50)],
    value: Annotated[str, Form(max_length=50_000)] = "",
    model: Annotated[bool, Form()] = False,
) -> Response:
    """A field as a person wants it, or as the model has it."""
    with transaction(services.engine) as connection:
        media, found = store.media_file(connection, media_id), store.analysis(connection, media_id)
    try:
        if model:
            fields = Correction.model_validate({field.partition(".")[0]: None}).given()
        else:
            fields = correcting.corrected(field, value, public_analysis(found or {}, background_removed=False))
    except ValueError as error:
        return back_to(f"/media/{media_id}", trouble=f"Nothing was changed: {problem_in(error)}.", at="analysis")
    analyses.correct(services, media, fields, by=session.caller.name)
    told = "The model's words are back." if model else "Corrected. Models do not change it any more."
    return back_to(f"/media/{media_id}", notice=told, at="analysis")


@router.post("/media/{media_id}/focus", response_class=Response)
def set_focus(
    services: ServicesDep,
    _: Acting,
    media_id: RowId,
    left: Annotated[float, Form()],
    top: Annotated[float, Form()],
    right: Annotated[float, Form()],
    bottom: Annotated[float, Form()],
) -> Response:
    """What the crops keep, in percent of width and height."""
    try:
        analyses.set_focus(services, media_id, [side / 100 for side in (left, top, right, bottom)])
    except BadInput:
        trouble = "Nothing was changed: left must be less than right and top less than bottom, from 0 to 100 %."
        return back_to(f"/media/{media_id}", trouble=trouble, at="crops")
    return back_to(f"/media/{media_id}", notice="Making the crops again around this focus.", at="crops")


@router.post("/media/{media_id}/focus/forget", response_class=Response)
def forget_focus(services: ServicesDep, _: Acting, media_id: RowId) -> Response:
    analyses.set_focus(services, media_id, None)
    return back_to(f"/media/{media_id}", notice="Making the crops again around what the engine finds.", at="crops")


def _steps(services: Services, media: MediaFile) -> dict[str, StepState]:
    """The image's checklist, and last `URLS`, which is work on its upload. URLS is left out when the uploads' database
    is away or does not know the upload."""
    with transaction(services.engine) as connection:
        checklist = store.checklist(connection, media.id)
    steps = {step.value: state for step, state in checklist.items()}
    try:
        with transaction(services.pending_engine) as connection:
            upload = pending.get(connection, media.main_api_id).status
    except (BackendUnavailable, NotFound):
        return steps
    if upload is PendingStatus.COMPLETE:
        return steps | {URLS: StepState.COMPLETED}
    attempts = services.claims.history(store.URLS, media.main_api_id)
    failed = bool(attempts) and attempts[-1].outcome == "failed"
    return steps | {URLS: StepState.FAILED if failed else StepState.PENDING}


def _made(variants: list[StoredVariant]) -> list[dict[str, Any]]:
    """The table of variants: one row a size and background, with its formats. A logo whose background was already
    transparent has the same files twice, and one row."""
    rows: list[dict[str, Any]] = []
    seen: list[tuple[str, dict[str, int]]] = []
    for removed, size in product((False, True), SIZES):
        by_format = {v.format: v for v in variants if v.size == size and (v.background == "removed") == removed}
        sizes = (size, {name: variant.bytes for name, variant in by_format.items()})
        if by_format and sizes not in seen:
            seen.append(sizes)
            least = min(by_format.values(), key=lambda variant: variant.bytes)
            rows.append({"size": size, "removed": removed, "by_format": by_format, "least": least})
    return rows


def _distance(found: Found) -> str:
    """How near a search result is, in words for its kind of search."""
    if found.distance is None:
        return found.why
    if found.why == "looks":
        return "looks the same" if found.distance == 0 else f"looks {1 - found.distance / 64:.0%} alike"
    if found.why == "meaning":
        return f"{max(0.0, 1 - found.distance):.0%} alike in meaning"
    if found.why == "colour":
        return "this very colour" if found.distance < 0.02 else f"colour {1 - found.distance:.0%} alike"
    return found.why  # several, of which one has a distance


def signature(services: Services, media_id: RowId, *, private: bool) -> str:
    """The signature with which the operator's page shows a private image; empty for other images."""
    return signing.sign(services.settings, media_id, seconds=signing.VALID_SECONDS, fixed={})[0] if private else ""


def filters(status: str, type: str, user: str) -> Filters:
    """
    Raises:
        BadInput: there is no such state or kind, or the user is no number.
    """
    try:
        kind, state = type and DataType(type), status and MediaStatus(status)
        return Filters(state or None, kind or None, int(user) if user else None)
    except ValueError as error:
        raise BadInput(f"There is no such filter: {error}.") from error


@router.get("/upload", response_class=Response)
def upload_form(page: Page, services: ServicesDep) -> Response:
    return page(
        "upload.html",
        about=about_queue("media"),
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
        raise type(error)(sentence(error.public.removeprefix(f"{field}: "))) from error
    return JSONResponse({"id": accepted.pending_id, "image_path": accepted.image_path}, 202, NO_STORE)


@router.get("/upload/state", response_class=Response)
def states(services: ServicesDep, _: Operator, ids: Numbers) -> Response:
    """Status and media id of uploads, and of failed ones the error with what to do about it, by the ids that they were
    answered with."""
    found: dict[int, dict[str, Any]] = {}
    asked = [int(one) for one in ids.split(",")][:MOST_FOLLOWED]
    with transaction(services.engine) as connection:
        known = {pending_id: store.media_of_pending(connection, pending_id) for pending_id in asked}
    for pending_id, media in known.items():  # with no connection in hand: the queue takes one
        if media is None:
            found[pending_id] = {"status": "waiting", "media_id": None, "error": None}
            continue
        error = None
        if media.status is MediaStatus.FAILED and media.error:
            what_to_do = advice(services.claims.find(store.MEDIA, media.id).error_code)
            error = f"{sentence(media.error)} {what_to_do.words}"
        found[pending_id] = {"status": media.status.value, "media_id": str(media.id), "error": error}
    return JSONResponse(found, headers=NO_STORE)
