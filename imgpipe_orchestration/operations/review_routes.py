"""HTTP routes of moderation: the review list, decisions, and reports of the public."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field
from sqlalchemy import text

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.moderation.verdicts import Verdict
from imgpipe_orchestration.operations import review
from imgpipe_orchestration.operations.kinds import subject_of
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import Allowed, Credentials, ServicesDep, allowed
from imgpipe_orchestration.web.values import MediaId, NoNul, RowId
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(tags=["moderation"])

REPORTS_A_MINUTE = 20
"""Reports that one address may send in a minute."""


class VerdictAnswer(BaseModel):
    """What a model or a person said of one image."""

    state: Literal["clear", "flagged", "held", "approved", "rejected"]
    provider: str | None
    model: str | None
    scores: dict[str, float]
    categories: list[str] = Field(description="Those whose score reaches its threshold.")
    decided_by: str | None
    decided_at: datetime | None
    reason: str | None


class Waiting(BaseModel):
    """One entry of the review list. `id` is the media id, or the id of a listing's image."""

    kind: str
    id: str
    user_id: int | None
    reports: int
    waiting_since: datetime
    verdict: VerdictAnswer


class ReviewList(BaseModel):
    items: list[Waiting]
    next: int | None = Field(description="Pass it as `cursor` for the next page. What comes later may be on any page.")


class Decision(BaseModel, extra="forbid"):
    decision: Literal["approve", "reject"]
    reason: NoNul = Field("", max_length=500)


class DecisionAnswer(BaseModel):
    kind: str
    id: str
    verdict: VerdictAnswer


class Report(BaseModel, extra="forbid"):
    reason: NoNul = Field(min_length=1, max_length=500)


class ReportAnswer(BaseModel):
    success: bool = True
    counted: bool = Field(description="False: you reported it before.")


@router.get("/api/moderation/queue", dependencies=[Depends(allowed)])
def queue(
    services: ServicesDep, cursor: RowId | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> ReviewList:
    """What waits for a person, except what other reviewers have open."""
    with transaction(services.engine) as connection:
        found = review.waiting(connection, after=cursor or 0, limit=limit)
        query = text("select id, public_id from image_queue where id = any(:ids)")
        listed = {"ids": [one.item for one in found if one.kind == "listings"]}
        names = {("listings", row.id): str(row.public_id) for row in connection.execute(query, listed)}
    items = [
        Waiting(
            kind=one.kind,
            id=names.get((one.kind, one.item), str(one.item)),
            user_id=one.user_id,
            reports=one.reports,
            waiting_since=one.review_since or datetime.min,
            verdict=_answer(one),
        )
        for one in found
    ]
    return ReviewList(items=items, next=found[-1].id if len(found) == limit else None)


@router.post("/api/moderation/{media_id}")
async def decide(
    media_id: MediaId, wanted: Decision, request: Request, services: ServicesDep, caller: Allowed
) -> DecisionAnswer:
    """Approve an image, or reject it into the trash. Repeating a decision changes nothing."""
    found = await run_in_threadpool(_decide, services, "media", media_id, wanted, caller.name)
    request.app.state.hot.forget(media_id)  # before the answer, so that the next request sees it
    return DecisionAnswer(kind="media", id=str(media_id), verdict=_answer(found))


@router.post("/api/moderation/listings/{image_id}")
def decide_listing(image_id: UUID, wanted: Decision, services: ServicesDep, caller: Allowed) -> DecisionAnswer:
    """The same for a listing's image, by the `id` of the upload's answer."""
    with transaction(services.engine) as connection:
        number = connection.scalar(text("select id from image_queue where public_id = :id"), {"id": image_id})
    if number is None:
        raise NotFound(f"There is no listing image {image_id}.")
    found = _decide(services, "listings", number, wanted, caller.name)
    return DecisionAnswer(kind="listings", id=str(image_id), verdict=_answer(found))


@router.post("/api/moderation/{kind}/{item}")
def decide_other(
    kind: Literal["briefs", "avatars", "findings"],
    item: RowId,
    wanted: Decision,
    services: ServicesDep,
    caller: Allowed,
) -> DecisionAnswer:
    """The same for a brief or a picture of the avatars, or a report's finding, by its `id` in the review list."""
    found = _decide(services, kind, item, wanted, caller.name)
    return DecisionAnswer(kind=kind, id=str(item), verdict=_answer(found))


@router.post("/api/media/{media_id}/report", status_code=202)
async def report(
    media_id: MediaId, body: Report, request: Request, services: ServicesDep, credentials: Credentials
) -> ReportAnswer:
    """Report an image: with a user's token once, without one at the rate of an address, which many people may share.
    After REPORTS_TO_HOLD the image is held back."""
    user = allowed(request, credentials, services).user if credentials else None
    address = request.client.host if request.client else ""
    request.app.state.report_rate.take(address, "Your address reports too many images; wait.")
    reporter = f"nobody {uuid4()}" if user is None else f"user {user}"
    counted, held = await run_in_threadpool(
        review.report, services, subject_of("media"), media_id, reporter=reporter, why=body.reason
    )
    if held:
        request.app.state.hot.forget(media_id)
    return ReportAnswer(counted=counted)


def _decide(services: Services, kind: str, item: int, wanted: Decision, who: str) -> Verdict:
    approve = wanted.decision == "approve"
    return review.decide(services, subject_of(kind), item, approve=approve, why=wanted.reason, who=who)


def _answer(found: Verdict) -> VerdictAnswer:
    return VerdictAnswer.model_validate(found.shown())
