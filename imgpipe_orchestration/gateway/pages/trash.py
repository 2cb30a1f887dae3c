"""The trash and people's erasures: what was deleted, by whom and why; restore it, purge it now, erase a person."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.gateway.pages.frame import Number, PageRoute, back_to, page
from imgpipe_orchestration.gateway.session import Acting, Operator
from imgpipe_orchestration.kinds import kind_of
from imgpipe_orchestration.lifecycle import erasure, trash
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep

router = APIRouter(include_in_schema=False, route_class=PageRoute)

ROWS = 50
KINDS = ("media", "listings")
"""What can be restored."""


@router.get("/trash", response_class=Response)
def show_trash(
    request: Request, services: ServicesDep, session: Operator, kind: str = KINDS[0], before: Number = ""
) -> Response:
    """What is in the trash, the newest first."""
    if kind not in KINDS:
        raise NotFound(f"There is no trash of {kind!r:.40}; there is one of {' and '.join(KINDS)}.")
    with transaction(services.engine) as connection:
        found = deletions.page(connection, kind, before=int(before) if before else None, limit=ROWS + 1)
        counts = deletions.counts(connection)
    older = found[ROWS - 1].id if len(found) > ROWS else None
    shown: dict[str, Any] = {"found": found[:ROWS], "older": older, "kind": kind, "kinds": KINDS, "counts": counts}
    return page(request, "trash.html", session, **shown)


@router.post("/trash/delete", response_class=Response)
def delete(request: Request, services: ServicesDep, session: Acting, what: Annotated[str, Form()]) -> Response:
    """Put one thing into the trash."""
    kind, item = _named(what)
    found = trash.delete(services, kind_of(kind), what, [item], user=None, who=session.caller.name)
    if kind == "media":
        request.app.state.hot.forget(item)
    until = f"{found.purge_after:%d %B %Y}"
    return back_to("/trash", kind=kind, notice=f"{kind} {item} is deleted. It can be restored until {until}.")


@router.post("/trash/restore", response_class=Response)
def restore(request: Request, services: ServicesDep, _: Acting, what: Annotated[str, Form()]) -> Response:
    """Take one thing out of the trash."""
    kind, item = _named(what)
    if not trash.restore(services, kind_of(kind), what, user=None):
        return back_to("/trash", kind=kind, trouble=f"{kind} {item} is not in the trash any more.")
    if kind == "media":
        request.app.state.hot.forget(item)
    return back_to("/trash", kind=kind, notice=f"{kind} {item} is restored, as it was.")


@router.post("/trash/purge", response_class=Response)
def purge(services: ServicesDep, _: Acting, what: Annotated[str, Form()]) -> Response:
    """Remove one thing for good, within seconds."""
    kind, item = _named(what)
    with transaction(services.engine) as connection:
        deletions.hasten(connection, services.claims, [what])
    return back_to("/trash", kind=kind, notice=f"{kind} {item} is being removed for good.")


@router.get("/erasures", response_class=Response)
def erasures(request: Request, services: ServicesDep, session: Operator) -> Response:
    """Whose erasure was asked for, and how far it is."""
    with transaction(services.engine) as connection:
        found = erasure.latest(connection)
    working = any(one.state == "running" for one in found)
    return page(request, "erasures.html", session, found=found, working=working)


@router.post("/erasures", response_class=Response)
def erase(services: ServicesDep, session: Acting, user: Annotated[str, Form()]) -> Response:
    """Erase a person."""
    number = _number(user)
    erasure.ask(services, number, who=session.caller.name)
    return back_to("/erasures", notice=f"Everything of user {number} is hidden, and is being removed for good.")


def _named(what: str) -> tuple[str, int]:
    kind, _, item = what.partition("/")
    if kind not in KINDS:
        raise BadInput(f"{what!r:.40} is in no trash.", field="what")
    return kind, _number(item)


def _number(written: str) -> int:
    written = written.strip()
    if not (written.isascii() and written.isdecimal() and len(written) <= 18 and int(written)):
        raise BadInput("A user id is a number, such as 456.", field="user")
    return int(written)
