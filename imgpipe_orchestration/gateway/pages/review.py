"""The review list, worked by keyboard: pictures that wait for a person, blurred, a few at a time."""

import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import JSONResponse

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.gateway.pages.frame import Page, back_to
from imgpipe_orchestration.gateway.session import DESK_COOKIE, Acting, Operator
from imgpipe_orchestration.moderation.verdicts import Verdict
from imgpipe_orchestration.operations import existing, review
from imgpipe_orchestration.operations.kinds import subject_of
from imgpipe_orchestration.storage.deletions import Deleted
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.web.values import RowId
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(include_in_schema=False)

AT_ONCE = 10
"""Things that one reviewer has on the page."""
ORDERED = 5000
"""Verdicts that one press of the button orders."""
OTHERS = 6
"""Further things of the same user that are shown beside."""


@router.get("/review", response_class=Response)
def show(request: Request, page: Page, services: ServicesDep, session: Operator) -> Response:
    """What this reviewer looks at: each has things of their own, and has the same ones at each visit."""
    browser = request.cookies.get(DESK_COOKIE) or secrets.token_hex()
    reviewer = session.id if session.login else browser  # without a sign-in, all have one id
    found = review.take(services, reviewer, limit=AT_ONCE)
    with transaction(services.engine) as connection:
        entries: list[dict[str, Any]] = [
            {
                "one": one,
                "said": one.shown() or {},
                "scores": sorted(one.scores.items(), key=lambda pair: -pair[1])[:4],
                "text": _text_of(services, one),
                "others": review.others(connection, one, limit=OTHERS),
            }
            for one in found
        ]
        count = review.count(connection)
    mode, unjudged = services.settings.moderation, existing.look(services)
    answer = page("review.html", entries=entries, count=count, mode=mode, unjudged=unjudged)
    if not session.login:
        answer.set_cookie(DESK_COOKIE, browser, httponly=True, samesite="lax")
    return answer


@router.post("/review/existing", response_class=Response)
def order(services: ServicesDep, _: Acting, action: Annotated[Literal["judge", "hide", "release"], Form()]) -> Response:
    """What is to become of things that were there before anybody judged."""
    if action == "release":
        return back_to("/review", notice=f"{existing.release(services):,} are shown again.")
    done = existing.judge(services, hide=action == "hide", most=ORDERED)
    return back_to("/review", notice=f"{done:,} wait for their verdict.")


def _text_of(services: Services, one: Verdict) -> str:
    """The text to review; empty for a picture."""
    if subject_of(one.kind).table or one.kind == "avatars":
        return ""
    try:
        content = subject_of(one.kind).content(services, one.item)
    except (NotFound, Deleted):
        return "It no longer exists."
    return content if isinstance(content, str) else ""


@router.get("/review/{kind}/{item}/picture", response_class=Response)
def picture(services: ServicesDep, _: Operator, kind: str, item: RowId) -> Response:
    """A small picture of a thing, also of one that is held back."""
    from imgpipe_orchestration.imaging.measuring import look

    content = subject_of(kind).content(services, item)
    if isinstance(content, str):
        raise NotFound("It is a text.")
    seen = services.workshop.call(look, content)
    return Response(seen.preview, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


@router.post("/review/decide", response_class=Response)
def decide(
    request: Request,
    services: ServicesDep,
    session: Acting,
    kind: Annotated[str, Form()],
    item: Annotated[int, Form(ge=1)],
    decision: Annotated[Literal["approve", "reject"], Form()],
    reason: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """Approve or reject one thing that nobody has decided on, should it have been given to somebody else by now."""
    subject, approve, who = subject_of(kind), decision == "approve", session.caller.name
    found = review.decide(services, subject, item, approve=approve, why=reason, who=who, first=True)
    if kind == "media":
        request.app.state.hot.forget(item)
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"state": found.state.value})
    return back_to("/review", notice=f"{kind} {item} is {found.state.value}.")
