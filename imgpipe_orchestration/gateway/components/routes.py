"""The components' files, and the routes that they call."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from imgpipe_orchestration.gateway.static_files import PackagedFiles
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.analyses import analysis_of
from imgpipe_orchestration.media.model import MediaStatus
from imgpipe_orchestration.media.serving import signing
from imgpipe_orchestration.media.serving.decision import SIZES, stand_ins
from imgpipe_orchestration.media.store import manifest_of, version_of
from imgpipe_orchestration.moderation.model import HELD, Held
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.web.headers import tagged
from imgpipe_orchestration.web.values import RowId
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(tags=["components"])

_FILES = PackagedFiles(__package__, "public, max-age=300, stale-while-revalidate=86400")

PUBLIC_FIELDS = ("style", "medium", "quality_score", "mood_keywords", "dominant_colors", "brand_colors", "alt_text")
"""What of an analysis everybody may read."""


class SizeInfo(BaseModel):
    """Pixels of a size, and the formats it is there in."""

    width: int
    height: int
    formats: list[str]


class ImageInfo(BaseModel):
    """What a page needs to show an image, and nothing else about it."""

    media_id: str
    status: MediaStatus
    alt: str | None
    width: int | None = Field(description="Of the original, upright.")
    height: int | None
    placeholder: str | None = Field(description="A tiny blurred picture, as a data URL.")
    sizes: dict[str, SizeInfo]
    version: str = Field(description="For `version=` in its URLs: browsers that cached other bytes fetch these.")
    background_removed: bool = Field(description="Whether `bg=removed` is available.")


class AnalysisAnswer(BaseModel):
    success: bool = True
    media_id: str
    status: MediaStatus
    complete: bool = Field(description="False while a provider's part is missing.")
    analysis: dict[str, Any]
    standins: list[str] = Field(description="Providers whose part a stand-in made up.")


def info_of(services: Services, media: store.MediaFile, *, signed: Mapping[str, str] = signing.NOTHING) -> ImageInfo:
    """
    Args:
        signed: the parameters that a signature fixes; nothing else is told.
    """
    with transaction(services.engine) as connection:
        manifest = manifest_of(connection, media.id)
        analysis = store.analysis(connection, media.id) or {}
    sizes: dict[str, SizeInfo] = {}
    only = signed.get("size")
    for variant in manifest:
        told = variant.format == signed.get("format", variant.format)
        if told and variant.background == signed.get("bg", "original"):
            made = sizes.setdefault(variant.size, SizeInfo(width=variant.width, height=variant.height, formats=[]))
            made.formats.append(variant.format)
    if only and (given := next((sizes[name] for name in stand_ins(only) if name in sizes), None)):
        sizes[only] = given
    # Completed as soon as there are variants to serve: the callback may still be to come.
    status = MediaStatus.COMPLETED if manifest else media.status
    return ImageInfo(
        media_id=str(media.id),
        status=status,
        alt=analysis.get("alt_text"),
        width=media.width,
        height=media.height,
        placeholder=analysis.get("placeholder"),
        sizes={name: sizes[name] for name in SIZES if name in sizes and only in {None, name}},
        version=version_of(manifest),
        background_removed=signed.get("bg") != "original" and any(v.background == "removed" for v in manifest),
    )


Signature = Annotated[str | None, Query(description="Opens a private image: as in its signed URL.")]
_CLOSED: dict[int | str, dict[str, Any]] = {403: {"description": "Private and not signed for, or held back (`held`)"}}


def _shown(services: Services, media_id: int) -> store.MediaFile:
    """An image that is not held back. A private one is only for whoever has a signature.

    Raises:
        NotFound: there is no such image.
        Held: nobody is shown it.
    """
    with transaction(services.engine) as connection:
        media = store.media_file(connection, media_id)
    if media.held:
        raise Held(HELD)
    return media


@router.get("/api/images/{media_id}/info", responses=_CLOSED)
def image_info(media_id: RowId, services: ServicesDep, response: Response, signature: Signature = None) -> ImageInfo:
    """What `<smart-image>` asks for. Open to every origin, as the images are. For a signature that covers one size,
    format or background, the answer names only that."""
    media = _shown(services, media_id)
    signed = signing.claims_of(services.settings, media_id, signature) if media.private else None
    found = info_of(services, media, signed=signed or signing.NOTHING)
    kept = found.status is MediaStatus.COMPLETED and signed is None
    response.headers.update(tagged(f"media-{media_id}"))
    response.headers["Cache-Control"] = "public, max-age=60" if kept else "no-store"
    return found


@router.get("/api/images/{media_id}/analysis", responses=_CLOSED)
def image_analysis(
    media_id: RowId, services: ServicesDep, response: Response, signature: Signature = None
) -> AnalysisAnswer:
    """What `<ai-analysis-display>` asks for: the public fields. A server with MEDIA_API_KEY reads all of them at
    `/api/media/analysis/{media_id}`."""
    media = _shown(services, media_id)
    if media.private:
        signing.check(services.settings, media_id, signature, signing.WHOLE)
    found = analysis_of(services, str(media_id))
    analysis, standins = found["analysis"], found.get("standins", [])
    providers = analysis.get("providers") or {}
    analysis = {name: analysis[name] for name in PUBLIC_FIELDS if name in analysis}
    response.headers["Cache-Control"] = "no-store"
    complete = all(state == "ok" for state in providers.values())
    return AnalysisAnswer(
        media_id=str(media_id), status=media.status, complete=complete, analysis=analysis, standins=standins
    )


@router.get(
    "/components/{name}",
    response_class=Response,
    responses={
        200: {"content": {"text/javascript": {}, "text/css": {}}},
        304: {"description": "The browser has it"},
    },
)
async def component(name: str, request: Request) -> Response:
    """A component as an ES module (`smart-image.js`, `ai-analysis-display.js`, `react.js`), or `components.css`, which
    reserves their space until they load."""
    return await _FILES.answer(name, request)
