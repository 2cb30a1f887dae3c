"""What the pages say of the pipelines (title, page, unit), of what a failed item is about (a label, and the page that
shows it), and of what to do about its error."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.auto_marker.model import JOB as MARKER
from imgpipe_orchestration.operations.pipelines import PIPELINES
from imgpipe_orchestration.storage.queues import WITHDRAWN


@dataclass(frozen=True, slots=True)
class About:
    """`name` is also the group of the pipeline's assets in Dagster and what its runs are tagged with."""

    name: str
    title: str
    page: str
    unit: str = "images"


ABOUT = (
    About("media", "Media", "/media"),
    About("listings", "Listings", "/listings"),
    About(MARKER, "Auto-marker", "/processing"),
    About("vision_reports", "Vision reports", "/vision-reports", "analyses"),
    About("avatars", "Avatars", "/avatars", "people"),
)


def about_queue(queue: str) -> About | None:
    """The pipeline that a queue belongs to; None when no pipeline of a page has the queue (any more)."""
    of_each = ((one, PIPELINES.get(one.name, ())) for one in ABOUT)
    return next((one for one, queues in of_each if queue in [each.name for each in queues]), None)


def subjects(connection: Connection, items: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Row[Any]]:
    """The subjects of (queue, item id) pairs, by `label` and `page`, which is empty where there is none; one query a
    queue. Items whose rows are gone are left out."""
    ids: dict[str, list[int]] = {}
    for queue, item_id in items:
        ids.setdefault(queue, []).append(item_id)
    return {
        (queue, row.id): row
        for queue, wanted in ids.items()
        if queue in _SUBJECTS
        for row in connection.execute(text(_SUBJECTS[queue]), {"ids": wanted})
    }


_IMAGE = "coalesce(nullif(original_name, ''), 'Image ' || id) as label, '/media/' || id as page from media_files"
_IMAGES = f"select id, {_IMAGE} where id = any(:ids)"
_OF_JOB = "coalesce('/vision-reports/' || j.job_id, '') as page"
_SUBJECTS = {
    **dict.fromkeys(("media", "media_healing", "media_canary", "media_unhurried_analysis"), _IMAGES),
    **dict.fromkeys(("media_remake_variants", "media_remake_analysis"), _IMAGES),
    "media_urls": f"select main_api_id as id, {_IMAGE} where main_api_id = any(:ids)",
    # The page that begins with this image: `before` is exclusive.
    "listings": """
        select id, '/listings?before=' || (id + 1) as page,
            coalesce(nullif(concat_ws(', ', nullif(listing_title, ''), nullif(original_name, '')), ''),
                'an image without a name') as label
        from image_queue where id = any(:ids)
    """,
    "avatar_images": """
        select r.id, '/avatars/' || t.task_id as page, concat_ws(', ',
            coalesce(nullif(r.firstname, '') || ' ' || r.lastname, 'Person ' || r.position + 1), nullif(t.brief, '')
        ) as label
        from generation_results r join generation_tasks t on t.id = r.task_id where r.id = any(:ids)
    """,
    "avatar_data": """
        select id, coalesce(nullif(brief, ''), 'Anybody') as label, '/avatars/' || task_id as page
        from generation_tasks where id = any(:ids)
    """,
    "auto_marker": """
        select number as id, customer_id as label, '/processing' as page from job_instances where number = any(:ids)
    """,
    "vision_analyses": f"""
        select a.id, concat_ws(', ', coalesce(nullif(a.run_code, ''), a.vision_analysis_id), j.name) as label, {_OF_JOB}
        from vision_analyses a left join vision_executions e on e.id = a.execution_id
        left join cron_jobs j on j.id = e.cron_job_id where a.id = any(:ids)
    """,
    "vision_executions": f"""
        select e.id, concat_ws(', ', 'Execution ' || e.id, j.name) as label, {_OF_JOB}
        from vision_executions e left join cron_jobs j on j.id = e.cron_job_id where e.id = any(:ids)
    """,
    "vision_batches": """
        select id, 'Batch of organization ' || organization_id as label, '' as page
        from vision_batches where id = any(:ids)
    """,
}


class Advice(NamedTuple):
    """What to do about an error, and whether another try may help: then it is the page's main button."""

    words: str
    may_help: bool = True


_THE_FILE = "The file itself is broken or unsuitable, so retrying won't help. Ask for it to be {} and uploaded again."
_ADVICE = {
    "bad-image": Advice(_THE_FILE.format("re-saved"), may_help=False),
    "image-too-slow": Advice(
        "The machine may have been overloaded: requeue the image at a quiet time."
        " If it fails again, it is too much for the engine."
    ),
    "too-large": Advice(_THE_FILE.format("made smaller"), may_help=False),
    "partner-refused": Advice(
        "The provider rejected the request. Retrying won't help until you change what it rejected.", may_help=False
    ),
    "conflict": Advice("Look at the upload in the main API: retrying does not change it.", may_help=False),
    WITHDRAWN: Advice("There is nothing to do.", may_help=False),
    "worker-died": Advice("The worker died on every attempt. Read the last run's log before you requeue it."),
}
_ANY = Advice("Retry once the cause is fixed.")


def advice(code: str | None) -> Advice:
    """For an error code, which may be unknown or None."""
    return _ADVICE.get(code or "", _ANY)
