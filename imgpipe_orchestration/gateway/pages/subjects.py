"""What a failed item is about (a label, and the page that shows it), and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import quote

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.gateway.pages import formats
from imgpipe_orchestration.storage.backlog import Attempt


@dataclass(frozen=True, slots=True)
class Subject:
    """`page` is empty where there is none."""

    label: str
    page: str


Subjects = dict[tuple[str, int], Subject]


def subjects(connection: Connection, items: Iterable[tuple[str, int]]) -> Subjects:
    """The subjects of (queue, item id) pairs; one query a queue. Items whose rows are gone are left out."""
    ids: dict[str, list[int]] = {}
    for queue, item_id in items:
        ids.setdefault(queue, []).append(item_id)
    found: Subjects = {}
    for queue, wanted in ids.items():
        if queue in _KINDS:
            query, read = _KINDS[queue]
            for row in connection.execute(query, {"ids": wanted}):
                subject = read(row)
                found[queue, row.id] = replace(subject, label=formats.short(subject.label))
    return found


def _media(row: Row[Any]) -> Subject:
    return Subject(row.name or f"Image {row.media_id}", f"/media/{row.media_id}")


def _listing(row: Row[Any]) -> Subject:
    # The page that begins with this image: `before` is exclusive.
    return Subject(row.name or "an image without a name", f"/listings?before={row.id + 1}")


def _person(row: Row[Any]) -> Subject:
    name = f"{row.firstname} {row.lastname}" if row.firstname else f"Person {row.position + 1}"
    return Subject(f"{name}, {row.brief}" if row.brief else name, f"/avatars/{quote(row.task_id)}")


def _request(row: Row[Any]) -> Subject:
    return Subject(row.brief or "Anybody", f"/avatars/{quote(row.task_id)}")


def _of_job(row: Row[Any]) -> Subject:
    label = f"{row.label}, {row.job}" if row.job else row.label
    return Subject(label, f"/vision-reports/{row.job_id}" if row.job_id else "")


_IMAGES = (text("select id, id as media_id, original_name as name from media_files where id = any(:ids)"), _media)
_UPLOADS = (
    text(
        "select main_api_id as id, id as media_id, original_name as name from media_files where main_api_id = any(:ids)"
    ),
    _media,
)
_KINDS: dict[str, tuple[Any, Callable[[Row[Any]], Subject]]] = {
    "media": _IMAGES,
    "media_healing": _IMAGES,
    "media_remake_variants": _IMAGES,
    "media_remake_analysis": _IMAGES,
    "media_unhurried_analysis": _IMAGES,
    "media_canary": _IMAGES,
    "media_urls": _UPLOADS,
    "media_cleanups": _UPLOADS,
    "listings": (
        text("""
            select id, concat_ws(', ', nullif(listing_title, ''), nullif(original_name, '')) as name
            from image_queue where id = any(:ids)
        """),
        _listing,
    ),
    "avatar_images": (
        text("""
            select r.id, r.firstname, r.lastname, r.position, t.task_id, t.brief
            from generation_results r join generation_tasks t on t.id = r.task_id where r.id = any(:ids)
        """),
        _person,
    ),
    "avatar_data": (text("select id, task_id, brief from generation_tasks where id = any(:ids)"), _request),
    "vision_analyses": (
        text("""
            select a.id, coalesce(nullif(a.run_code, ''), a.vision_analysis_id) as label, j.name as job, j.job_id
            from vision_analyses a left join vision_executions e on e.id = a.execution_id
            left join cron_jobs j on j.id = e.cron_job_id where a.id = any(:ids)
        """),
        _of_job,
    ),
    "vision_executions": (
        text("""
            select e.id, 'Execution ' || e.id as label, j.name as job, j.job_id
            from vision_executions e left join cron_jobs j on j.id = e.cron_job_id where e.id = any(:ids)
        """),
        _of_job,
    ),
    "vision_batches": (
        text("""
            select id, 'Batch of organization ' || organization_id as label, null as job, null as job_id
            from vision_batches where id = any(:ids)
        """),
        _of_job,
    ),
}


class Advice(NamedTuple):
    """What to do about an error, and whether another try may help: then it is the page's main button."""

    words: str
    may_help: bool = True


_THE_FILE = "The file itself is broken or unsuitable, so retrying won't help. Ask for it to be {} and uploaded again."
_ADVICE = {
    "bad-image": Advice(_THE_FILE.format("re-saved"), may_help=False),
    "too-large": Advice(_THE_FILE.format("made smaller"), may_help=False),
    "partner-refused": Advice(
        "The provider rejected the request. Retrying won't help until you change what it rejected.", may_help=False
    ),
    "worker-died": Advice("The worker died on every attempt. Read the last run's log before you requeue it."),
}
_ANY = Advice("Retry once the cause is fixed.")


def advice(code: str | None) -> Advice:
    """For an error code, which may be unknown or None."""
    return _ADVICE.get(code or "", _ANY)


def advice_after(attempts: Sequence[Attempt]) -> Advice:
    """For an item that failed at the last of its attempts, which retention may have removed."""
    return advice(attempts[-1].error_code if attempts else None)
