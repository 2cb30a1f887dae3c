"""The trash and people's erasures: what was deleted, by whom and why; erase a person."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.gateway.pages.frame import Number, PageRoute, back_to, page
from imgpipe_orchestration.gateway.session import Acting, Operator
from imgpipe_orchestration.lifecycle import erasure
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


@router.get("/erasures", response_class=Response)
def erasures(request: Request, services: ServicesDep, session: Operator) -> Response:
    """Whose erasure was asked for, and how far it is."""
    with transaction(services.engine) as connection:
        found = erasure.latest(connection)
    working = any(one.state == "running" for one in found)
    return page(request, "erasures.html", session, found=found, working=working)


@router.post("/erasures", response_class=Response)
def erase(
    request: Request,
    services: ServicesDep,
    session: Acting,
    user: Annotated[str, Form()],
    confirmed: Annotated[bool, Form()] = False,
) -> Response:
    """Erase a person, once it was asked whether to, with how much there is of them."""
    number = _number(user)
    if not confirmed:
        with transaction(services.engine) as connection:
            counts = erasure.counted(connection, number)
        has = ", ".join(f"{name} {n:,}" for name, n in counts.items() if n) or "nothing that is shown"
        words = f"In every pipeline, for good. There is of this user: {has}. Nobody can undo this."
        shown: dict[str, Any] = {"to": "/erasures", "fields": [("user", number)], "words": words, "back": "/erasures"}
        return page(request, "confirm.html", session, verb=f"Erase everything of user {number}", **shown)
    erasure.ask(services, number, who=session.caller.name)
    return back_to("/erasures", notice=f"Everything of user {number} is hidden, and is being removed for good.")


def _number(written: str) -> int:
    written = written.strip()
    if not (written.isascii() and written.isdecimal() and len(written) <= 18 and int(written)):
        raise BadInput("A user id is a number, such as 456.", field="user")
    return int(written)
