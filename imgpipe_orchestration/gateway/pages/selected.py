"""What is done with many things at once (those that were picked on a page, or all of the page's filter); the trash, and
people's erasures."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import text

from imgpipe_orchestration.avatars import records
from imgpipe_orchestration.avatars import routes as avatars
from imgpipe_orchestration.avatars.model import task_prefix
from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.gateway.pages.frame import Number, Page, back_to, sent_from
from imgpipe_orchestration.gateway.pages.media import filters
from imgpipe_orchestration.gateway.session import Acting, safe_target
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.identity.model import Caller
from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.lifecycle.zips import pictures
from imgpipe_orchestration.media import owner_routes, search
from imgpipe_orchestration.operations import erasure, purge
from imgpipe_orchestration.operations.kinds import KIND
from imgpipe_orchestration.operations.pipelines import queues
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.claims import Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.web.values import RowId
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(include_in_schema=False)

MOST = 10_000
"""Things of one action. They are deleted in one transaction."""

Picked = dict[str, list[str]]
"""Ids by kind, or by queue on the page of failures. Those of avatars are public task ids."""

Action = Literal["delete", "purge", "restore", "requeue", "ignore", "unignore", "private", "public", "download"]

SAID = {
    "delete": ("is deleted", "are deleted"),
    "purge": ("is being removed for good", "are being removed for good"),
    "restore": ("is restored", "are restored"),
    "requeue": ("waits again, with fresh attempts", "wait again, with fresh attempts"),
    "ignore": ("is left as it is", "are left as they are"),
    "unignore": ("counts as failed again", "count as failed again"),
    "private": ("is private now", "are private now"),
    "public": ("is public now", "are public now"),
}
LOSES = {
    "delete": "Nobody is shown what is deleted. It can be restored from the trash for {days:g} days.",
    "purge": "All files are removed for good. This cannot be undone.",
}
_VERBS = {"purge": "Remove {} for good", "private": "Make {} private", "public": "Make {} public"}
_NOUNS = {
    "media": ("image", "images"),
    "listings": ("image of a listing", "images of listings"),
    "avatars": ("request for people", "requests for people"),
}


@router.post("/selected", response_class=Response)
def act(
    request: Request,
    page: Page,
    services: ServicesDep,
    session: Acting,
    action: Annotated[Action, Form()],
    of: Annotated[Literal["media", "listings", "avatars", "failures", "trash"], Form()] = "trash",
    what: Annotated[list[str] | None, Form()] = None,
    every: Annotated[bool, Form()] = False,
    filter: Annotated[str, Form(max_length=2000)] = "",
    at: Annotated[datetime | None, Form()] = None,
    back: Annotated[str, Form(max_length=2000)] = "",
    confirmed: Annotated[bool, Form()] = False,
) -> Response:
    """Do one thing with many: with what was picked, with all that the page's filter finds, or with what was deleted
    together at a moment, to undo it. What loses something, and whatever is done with all of a filter, is asked about
    first, with how many things it touches."""
    back = safe_target(back or sent_from(request) or f"/{of}")
    picked = _together(services, at) if at else _all(services, of, filter) if every else _read(what or [])
    if every and confirmed and what is not None:  # what came since was not asked about
        asked = _read(what)
        picked = {name: sorted({*ids} & {*asked.get(name, [])}) for name, ids in picked.items()}
    count = sum(map(len, picked.values()))
    if not count:
        gone = "These are not in the trash any more, or somebody else deleted them: look in the trash."
        return back_to(back, trouble=gone if at else "Nothing was selected, so nothing was done.")
    if action == "download":
        return _zip(services, session.caller, *next(iter(picked.items())))
    if not confirmed and (every or action in LOSES):
        verb = _VERBS.get(action, action.capitalize() + " {}").format(_counted(count, of))
        fields = [("of", of), ("action", action), ("filter", filter), ("back", back)]
        fields += [("every", "true")] if every else []
        fields += [("what", " ".join(f"{name}/{one}" for name, ids in picked.items() for one in ids))]
        days = services.settings.trash_days
        words = LOSES.get("purge" if action == "delete" and not days else action, "").format(days=days)
        shown: dict[str, Any] = {"to": "/selected", "fields": fields, "verb": verb, "words": words, "back": back}
        return page("confirm.html", **shown)
    audit.note(action=action, subject=_counted(count, of), after={"all of": filter} if every else picked)
    undo, remark = "", ""
    if action in LOSES:
        days = services.settings.trash_days if action == "delete" else 0
        done, undo = _delete(services, session.caller, picked, days=days, trashed=of == "trash")
    elif action == "restore":
        states = [state for name, ids in picked.items() for state in _restore(services, name, ids)]
        done, held = len(states), states.count("held")
        stay = ("stays", "stay")[held != 1]
        remark = f" {_counted(held, of)} {stay} held back until somebody approves." if held else ""
    else:
        done = sum(_do(services, session.caller, action, name, ids) for name, ids in picked.items())
    for media_id in picked.get("media", []):
        request.app.state.hot.forget(int(media_id))
    said = f"{_counted(done, of)} {SAID[action][done != 1]}.{remark}" if done else ""
    why = "not in the trash any more" if of == "trash" else "there was nothing to do"
    left = f"Nothing was done with {_counted(count - done, of)}: {why}." if done < count else ""
    if left and action in LOSES and of in _NOUNS:
        left = f"{_counted(count - done, of)} {('was', 'were')[count - done != 1]} deleted already."
    return back_to(back, notice=said, trouble=left, undo=undo)


def _counted(count: int, of: str) -> str:
    return f"{count:,} {_NOUNS.get(of, ('item', 'items'))[count != 1]}"


def _read(whats: list[str]) -> Picked:
    """
    Raises:
        BadInput: one of them names nothing that we have.
    """
    picked: Picked = {}
    for what in " ".join(whats).split()[:MOST]:  # a form has at most a thousand fields
        name, _, item = what.partition("/")
        if name != "avatars" and not (item.isascii() and item.isdecimal() and len(item) <= 18):
            raise BadInput(f"{what!r:.60} cannot be selected.", field="what")
        picked.setdefault(name, []).append(item)
    return picked


def _together(services: Services, at: datetime) -> Picked:
    picked: Picked = {}
    with transaction(services.engine) as connection:
        for row in connection.execute(_DELETED_AT, {"at": at, "limit": MOST}):
            picked.setdefault(row.kind, []).append(row.id)
    return picked


def _all(services: Services, of: str, query: str) -> Picked:
    """What the filter of a page finds, which is the page's query.

    Raises:
        BadInput: the page has no such filter.
    """
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    picked: Picked = {}
    if of == "failures":
        queue = queues(asked["queue"])[0] if "queue" in asked else None
        for letter in services.claims.failures(queue, limit=MOST):
            picked.setdefault(letter.queue, []).append(str(letter.item_id))
        return picked
    with transaction(services.engine) as connection:
        if of == "media":
            wanted = filters(asked.get("status", ""), asked.get("type", ""), asked.get("user", ""))
            return {of: [str(one) for one in search.ids(connection, wanted, limit=MOST)]}
        if of == "trash":
            of = asked.get("kind", "media")
            return {of: [str(one.item) for one in deletions.page(connection, of, limit=MOST)]}
        return {of: list(connection.scalars(_EVERY[of], {"limit": MOST}))}


def _delete(services: Services, caller: Caller, picked: Picked, *, days: float, trashed: bool) -> tuple[int, str]:
    """How many things were deleted, and the moment of it, by which it can be undone. Of what was picked in the trash
    (`trashed`) what was restored since stays."""
    done = 0
    with transaction(services.engine) as connection:
        for name, ids in picked.items():
            if name not in _NOUNS:
                continue  # an item of another queue is a step of something
            numbers = records.numbers(connection, ids) if name == "avatars" else [int(one) for one in ids]
            if trashed:
                numbers = deletions.lock(connection, [f"{name}/{one}" for one in numbers])
            for start in range(0, len(numbers), purge.BATCH):
                some, who = numbers[start : start + purge.BATCH], caller.name
                done += len(trash.put(services, connection, KIND[name], some, who=who, why="asked for", days=days))
        moment = connection.scalar(text("select now()"))
    return done, moment.isoformat() if moment and days and done else ""


def _do(services: Services, caller: Caller, action: str, name: str, ids: list[str]) -> int:
    """With how many of some things it was done."""
    if name == "avatars":
        return sum(avatars.retry_failed(item, services).retried > 0 for item in ids) if action == "requeue" else 0
    if action in {"private", "public"}:
        results = owner_routes.act_on_all(services, [int(item) for item in ids if name == "media"], action, caller)
        return sum(one.success for one in results)
    change: Callable[[Queue, list[int]], list[int]] = getattr(services.claims, action)
    return len(change(queues(name)[0], [int(item) for item in ids]))


def _restore(services: Services, name: str, ids: list[str]) -> list[str]:
    """The states of those that were in the trash."""
    whats = [f"{name}/{item}" for item in ids if name in _NOUNS]
    batches = [whats[start : start + purge.BATCH] for start in range(0, len(whats), purge.BATCH)]
    return [state for batch in batches for state in trash.restore_all(services, KIND[name], batch)]


def _zip(services: Services, caller: Caller, name: str, ids: list[str]) -> Response:
    """The originals of images; the pictures of avatars, without the bought ones, which may be held back.

    Raises:
        NotFound: there are none.
    """
    if name not in _NOUNS:
        raise NotFound("These have no pictures.")
    bucket = KIND[name].bucket(services)
    named: Iterator[tuple[str, str, int | None]]
    if name == "media":
        named = owner_routes.originals(services, [int(one) for one in ids], caller)
    elif name == "listings":
        with transaction(services.engine) as connection:
            rows = connection.execute(_ORIGINALS, {"ids": [int(one) for one in ids]}).all()
        named = iter([(f"{row.id} {row.original_name}".replace("/", " "), row.original_key, row.bytes) for row in rows])
    else:
        with transaction(services.engine) as connection:
            prefixes = [task_prefix(number) for number in records.numbers(connection, ids)]
        keys = (key for prefix in prefixes for key in purge.under(bucket, [prefix]) if "/bought/" not in key)
        named = ((key.partition("/")[2], key, None) for key in keys)
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"', "Cache-Control": "no-store"}
    return StreamingResponse(pictures(bucket, named), media_type="application/zip", headers=headers)


_DELETED_AT = text("""
    select kind, cast(item as text) as id from deletions where trashed_at = :at and purging_at is null limit :limit
""")
_EVERY = {
    "listings": text("select cast(id as text) from live_image_queue order by id desc limit :limit"),
    "avatars": text("""
        select task_id from generation_tasks t
        where not exists (select from deletions d where d.kind = 'avatars' and d.item = t.id)
        order by id desc limit :limit
    """),
}
_ORIGINALS = text("select id, original_name, original_key, bytes from live_image_queue where id = any(:ids)")


ROWS = 50
KINDS = ("media", "listings")
"""What can be restored."""


@router.get("/trash", response_class=Response)
def show_trash(page: Page, services: ServicesDep, kind: str = KINDS[0], before: Number = "") -> Response:
    if kind not in KINDS:
        raise NotFound(f"There is no trash of {kind!r:.40}; there is one of {' and '.join(KINDS)}.")
    with transaction(services.engine) as connection:
        found = deletions.page(connection, kind, before=int(before) if before else None, limit=ROWS + 1)
        counts = deletions.counts(connection)
    older = found[ROWS - 1].id if len(found) > ROWS else None
    shown: dict[str, Any] = {"found": found[:ROWS], "older": older, "kind": kind, "kinds": KINDS, "counts": counts}
    return page("trash.html", **shown)


@router.get("/erasures", response_class=Response)
def erasures(page: Page, services: ServicesDep) -> Response:
    with transaction(services.engine) as connection:
        found = erasure.latest(connection)
    working = any(one.state == "running" for one in found)
    return page("erasures.html", found=found, working=working)


@router.post("/erasures", response_class=Response)
def erase(
    page: Page,
    services: ServicesDep,
    session: Acting,
    user: Annotated[RowId, Form()],
    confirmed: Annotated[bool, Form()] = False,
) -> Response:
    """Erase a person, after a confirmation that says how much there is of them."""
    if not confirmed:
        with transaction(services.engine) as connection:
            counts = erasure.counted(connection, user)
        has = ", ".join(f"{name} {n:,}" for name, n in counts.items() if n) or "nothing that is shown"
        words = f"In every pipeline, for good. This user has: {has}. This cannot be undone."
        shown: dict[str, Any] = {"to": "/erasures", "fields": [("user", user)], "words": words, "back": "/erasures"}
        return page("confirm.html", verb=f"Erase all data of user {user}", **shown)
    erasure.ask(services, user, who=session.caller.name)
    return back_to("/erasures", notice=f"All data of user {user} is hidden, and is being removed for good.")
