"""For developers: the web components at work, with the HTML to write for them; and `/docs`, the API to try."""

from fastapi import APIRouter, Request, Response

from imgpipe_orchestration.gateway.components.routes import PUBLIC_FIELDS, info_of
from imgpipe_orchestration.gateway.pages.frame import POLICY, Number, Page
from imgpipe_orchestration.gateway.pages.media import signature
from imgpipe_orchestration.gateway.session import Operator
from imgpipe_orchestration.gateway.static_files import PackagedFiles
from imgpipe_orchestration.media import search, store
from imgpipe_orchestration.media.model import MediaStatus
from imgpipe_orchestration.media.search import Filters
from imgpipe_orchestration.media.serving.decision import SIZES
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep

router = APIRouter(include_in_schema=False)

_SWAGGER = PackagedFiles("fastapi_offline", "private, max-age=86400")

# Swagger UI sets styles on its elements; scripts still come from this origin only.
_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")


@router.get("/components", response_class=Response)
def components(page: Page, services: ServicesDep, media: Number = "") -> Response:
    """The elements with an image: the one asked for, or the newest that is ready."""
    ready = Filters(status=MediaStatus.COMPLETED, held=False)
    with transaction(services.engine) as connection:
        ids = [int(media)] if media else search.ids(connection, ready, limit=1)
        shown = store.media_file(connection, ids[0]) if ids else None
    info = info_of(services, shown) if shown else None
    return page(
        "components.html",
        media_id=shown and shown.id,
        alt=(info and info.alt) or "The picture",
        info=info,
        signature=signature(services, shown.id, private=shown.private) if shown else "",
        sizes=SIZES,
        base=services.settings.public_base_url,
        public=PUBLIC_FIELDS,
    )


@router.get("/docs", response_class=Response)
def documentation(page: Page) -> Response:
    answer = page("docs.html")
    answer.headers["Content-Security-Policy"] = _POLICY
    return answer


@router.get("/docs/{name}", response_class=Response)
async def asset(name: str, request: Request, _: Operator) -> Response:
    """A file of Swagger UI, which the package fastapi-offline carries."""
    return await _SWAGGER.answer(name, request)
