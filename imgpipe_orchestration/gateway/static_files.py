"""Style sheets, scripts and pictures that packages have in their folders `static`; those of the pages at /static."""

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)


class PackagedFiles(StaticFiles):
    """The files of a package.

    Args:
        caching: says for how long browsers need not ask for them again.
    """

    def __init__(self, package: str, caching: str) -> None:
        super().__init__(packages=[(package, "static")])
        self._caching = caching

    async def answer(self, name: str, request: Request) -> Response:
        """One file, unless the browser has it.

        Raises:
            HTTPException: there is no such file.
        """
        found = await self.get_response(name, request.scope)
        found.headers["Cache-Control"] = self._caching
        return found


_OF_PAGES = PackagedFiles("imgpipe_orchestration.gateway.pages", "public, max-age=60")


@router.get("/static/{name}", response_class=Response)
async def static(name: str, request: Request) -> Response:
    """A file of the pages."""
    return await _OF_PAGES.answer(name, request)


@router.get("/favicon.ico", response_class=Response)
async def favicon(request: Request) -> Response:
    """The icon that browsers ask for by themselves."""
    return await _OF_PAGES.answer("icon.svg", request)
