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
    signed = ""
    with transaction(services.engine) as connection:
        if media:
            asked = store.media_file(connection, int(media))
            shown: int | None = asked.id
            signed = signature(services, asked.id, private=asked.private)
        else:
            newest = search.latest(connection, Filters(status=MediaStatus.COMPLETED, held=False), limit=1)
            shown = newest[0].id if newest else None
        analysis = store.analysis(connection, shown) if shown else None
    return page(
        "components.html",
        media_id=shown,
        alt=(analysis or {}).get("alt_text") or "The picture",
        info=info_of(services, shown) if shown else None,
        signature=signed,
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
