"""The routes of images for the router and OpenAPI; `images` answers them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlencode, urlsplit

import jinja2
from fastapi import APIRouter, FastAPI, Query, Request, Response

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.imaging.formats import MIME_OF
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.model import MediaStatus
from imgpipe_orchestration.media.serving import decision, signing
from imgpipe_orchestration.media.serving.callers import Callers
from imgpipe_orchestration.media.serving.decision import MODERN, ORDER, Decision
from imgpipe_orchestration.media.serving.hot import HotImages, follow_changes
from imgpipe_orchestration.media.serving.images import ADDRESSES, asked_for, respond
from imgpipe_orchestration.media.store import StoredVariant, manifest_of, version_of
from imgpipe_orchestration.moderation.model import HELD, Held
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web import problems
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.web.headers import HEADERS, tagged
from imgpipe_orchestration.web.values import RowId
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(tags=["serving"])

_IMAGES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The image; until it is ready its original, or a placeholder; with `explain` the reasons",
        "content": {mime: {} for mime in (*MIME_OF.values(), "image/*", "application/json")},
    },
    206: {"description": "The part of it that Range asks for", "content": {mime: {} for mime in MIME_OF.values()}},
    304: {"description": "The client has it already"},
    400: {"description": "No such size, format or background", "content": {problems.MEDIA_TYPE: {}}},
    403: {"description": "Private and not signed for, or held back (`held`)", "content": {problems.MEDIA_TYPE: {}}},
    404: {"description": "No such image, or it could not be processed", "content": {problems.MEDIA_TYPE: {}}},
    416: {"description": "The range lies outside of the image", "content": {problems.MEDIA_TYPE: {}}},
    503: {"description": "Our storage is unavailable; the body is a placeholder", "content": {"image/svg+xml": {}}},
}


def _parameter(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


_SIGNATURE = _parameter("signature", {"type": "string"}, "Opens a private image: as in its signed URL.")
_PARAMETERS = [
    _parameter("size", {"enum": list(decision.SIZES), "default": decision.DEFAULT_SIZE}, "The last one counts."),
    _parameter("format", {"enum": [*MIME_OF, "jpg"]}, "Without it Accept decides."),
    _parameter("bg", {"enum": list(decision.BACKGROUNDS), "default": "original"}, "`removed` exists for logos."),
    _SIGNATURE,
    _parameter("version", {"type": "string"}, "Of the bytes, as in the image's info: the URL changes with them."),
    _parameter("explain", {"type": "boolean"}, "Say why this client gets these bytes, instead of the bytes."),
]


@asynccontextmanager
async def serving(app: FastAPI, services: Services) -> AsyncIterator[None]:
    """For the app's lifespan: the cache of images with a task that keeps it up to date, and the counts of callers with
    one that writes them regularly; they are written once more at the end."""
    hot, callers = HotImages(services), Callers()
    app.state.hot, app.state.callers = hot, callers
    tasks = [
        asyncio.create_task(follow_changes(services, hot)),
        asyncio.create_task(callers.keep_writing(services.engine)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await callers.flush(services.engine)
        finally:
            await hot.close()


@router.get(
    "/picture/{media_id}",
    response_class=Response,
    responses={
        200: {"description": "The element", "content": {"text/html": {}}},
        **{status: _IMAGES[status] for status in (400, 403, 404)},
    },
    openapi_extra={"parameters": [*_PARAMETERS[:1], _PARAMETERS[2], _SIGNATURE]},
)
def picture_of(
    media_id: RowId,
    request: Request,
    services: ServicesDep,
    sizes: Annotated[str, Query(max_length=500, description="As of `<img>`; without it as wide as `size`.")] = "",
    alt: Annotated[str | None, Query(max_length=1000, description="Replaces the words of the analysis.")] = None,
    loading: Literal["lazy", "eager"] = "lazy",
) -> Response:
    """A `<picture>` ready to be put into a page: every format and width, its place, its blurred picture, its words."""
    wish = decision.read(request.scope["query_string"])
    with transaction(services.engine) as connection:
        media = store.media_file(connection, media_id)
        manifest = manifest_of(connection, media_id)
        analysis = store.analysis(connection, media_id) or {}
    if media.held:
        raise Held(HELD)
    if media.private:  # a signature for one size or format would not open the element's other ones
        asked = {"size": None, "format": None, "bg": wish.background}
        signing.check(services.settings, media_id, wish.signature, asked)
    if media.status is MediaStatus.FAILED and not manifest:
        raise NotFound(f"Media {media.id} could not be processed: {media.error}")
    url = f"{services.settings.smart_media_base_url}/{media_id}"
    place: dict[str, Any] = {"alt": analysis.get("alt_text") or "" if alt is None else alt}
    further = {name: value for name, value in {"bg": wish.background, "signature": wish.signature}.items() if value}
    if further["bg"] == "original":
        del further["bg"]
    if manifest:
        further["version"] = version_of(manifest)
        chosen = decision.decide(decision.shelved(manifest), wish, None)
        place |= _choices(url, manifest, chosen, sizes=sizes, further=further)
        place |= {"loading": loading, "placeholder": analysis.get("placeholder")}
    else:  # its URL shows the original or a placeholder
        place |= {"src": f"{url}?{urlencode(further)}" if further else url}
        place |= {"width": media.width, "height": media.height}
    caching = "public, max-age=60" if manifest and not media.private else "no-store"
    at = urlsplit(url)
    # A browser that opens this address as a page shows the image, too.
    policy = f"{HEADERS['Content-Security-Policy']}; img-src data: {at.scheme}://{at.netloc}"
    headers = {"Cache-Control": caching, "Content-Security-Policy": policy, **tagged(f"media-{media_id}")}
    return Response(_template().render(place), media_type="text/html", headers=headers)


async def image(media_id: str, request: Request) -> Response:
    """Requests that `Images` passes on, and invalid ids."""
    asked = asked_for(request.scope)
    if asked is None:
        raise NotFound(f"There is no media {media_id}.")
    return await respond(request.scope, *asked)


for _name, _address in ADDRESSES.items():
    router.add_api_route(
        _address.path,
        image,
        name=_name,
        description=_address.description,
        response_class=Response,
        responses=_IMAGES,
        openapi_extra={"parameters": _PARAMETERS},
    )


# --- <picture> elements for web pages --------------------------------------------------------------------------------


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True
    )
    return environment.get_template("picture.html")


def _choices(
    url: str, manifest: Sequence[StoredVariant], chosen: Decision, *, sizes: str, further: dict[str, str]
) -> dict[str, Any]:
    """What a browser can choose from: all widths of the chosen size's shape in each modern format, as a source, and in
    the format that every browser shows.

    Args:
        url: the image's smart URL, without parameters.
        chosen: the default size; sizes of another shape are left out.
        sizes: as for `<img>`; if empty, as wide as the chosen size but not wider than the window.
        further: parameters for every URL (`bg`, `signature`, `version`).
    """
    main = chosen.variant
    alike = [one for one in manifest if one.background == main.background and decision.same_shape(one, main)]
    widths = {one.width: one.size for one in sorted(alike, key=lambda one: one.size == main.size)}

    def address(size: str, format_: str) -> str:
        return f"{url}?{urlencode({'size': size, 'format': format_, **further})}"

    def widths_of(format_: str) -> str:
        return ", ".join(f"{address(size, format_)} {width}w" for width, size in sorted(widths.items()))

    formats = [name for name in ORDER if any(one.format == name for one in alike)]
    plain = next((name for name in formats if name not in MODERN), formats[-1])
    return {
        "sources": [(MIME_OF[name], widths_of(name)) for name in formats if name != plain],
        "src": address(main.size, plain),
        "srcset": widths_of(plain),
        "sizes": sizes or f"(max-width: {main.width}px) 100vw, {main.width}px",
        "width": main.width,
        "height": main.height,
        "transparent": plain != "jpeg",
    }
