"""Counts of requests for an image by caller.

A caller is the host of the page that shows the image (`Referer`), else the requesting program (the first word of
`User-Agent`), but never a path, an address or a person. Serving only adds to a dictionary; a background task writes the
rows. Their number per image is limited, as anybody can invent hosts.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import Connection, Engine, Row, text

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.media.serving.decision import LONGEST_KEPT
from imgpipe_orchestration.media.store import StoredVariant
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

FLUSH_SECONDS = 10.0
MOST_KEPT = 20_000
"""Most different counts between two flushes; further callers are counted as others."""
MOST_ROWS = 100
"""Most rows of one image; further callers are counted as others."""
KEPT_DAYS = 90
"""Days after which a caller that was not seen again is removed."""
OTHERS = "others"
_LONGEST = 100


class Asked(NamedTuple):
    """What is counted separately."""

    media_id: int
    kind: str
    caller: str
    size: str
    format: str


class Callers:
    """The counts of one gateway. `note` is called in the event loop and does not block."""

    def __init__(self) -> None:
        self._counts: Counter[Asked] = Counter()

    def note(self, media_id: int, variant: StoredVariant, page: str, program: str) -> None:
        """Count a request that is answered with a variant; `page` is its Referer, `program` its User-Agent."""
        asked = Asked(media_id, *named(page[:LONGEST_KEPT], program[:LONGEST_KEPT]), variant.size, variant.format)
        if len(self._counts) >= MOST_KEPT and asked not in self._counts:
            asked = asked._replace(kind="client", caller=OTHERS)
        self._counts[asked] += 1

    async def flush(self, engine: Engine) -> None:
        """Write the counts to the database; if it is away, most of them are kept for the next time."""
        if not self._counts:
            return
        counts, self._counts = self._counts, Counter()
        try:
            await asyncio.to_thread(write, engine, counts)
        except ImgpipeError as error:
            log.warning("callers of images could not be written down; trying again", extra={"error": error.public})
            self._counts.update(dict(counts.most_common(MOST_KEPT // 2)))

    async def keep_writing(self, engine: Engine) -> None:
        """Write the counts regularly until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush(engine)
            except Exception:  # whatever it is, the next ones are to be written down
                log.exception("callers of images were not written down")


@lru_cache(maxsize=4096)
def named(page: str, program: str) -> tuple[str, str]:
    """Kind and name of a caller, from its Referer and User-Agent."""
    try:
        host = urlsplit(page).hostname if page.isascii() else None
    except ValueError:  # not a URL
        host = None
    if host:
        return "page", host[:_LONGEST]
    word = program.partition("/")[0].split(" ")[0]
    if word == "Mozilla":
        return "client", "a browser that names no page"
    return "client", word[:_LONGEST] if word.isprintable() and word else "unknown"


def write(engine: Engine, counts: Counter[Asked]) -> None:
    """Add counts to the rows of their callers, except for deleted images; remove callers not seen for long."""
    rows = [{**asked._asdict(), "n": n} for asked, n in sorted(counts.items())]
    with transaction(engine) as connection:
        connection.execute(_ADD, rows)
        connection.execute(_FORGET, {"days": KEPT_DAYS})


def of_image(connection: Connection, media_id: int) -> Sequence[Row[Any]]:
    """The twenty most frequent callers of an image over all sizes and formats, most requests first: `kind`, `caller`,
    `sizes`, `formats`, `requests`, `last_at`."""
    return connection.execute(_OF_IMAGE, {"media_id": media_id}).all()


# `room` is computed for each row, so that the rows of the same flush count as well.
_ADD = text(f"""
    insert into media_callers (media_id, kind, caller, size, format, requests)
    select :media_id,
        case when known.room then :kind else 'client' end, case when known.room then :caller else '{OTHERS}' end,
        :size, :format, :n
    from (select count(*) < {MOST_ROWS} or bool_or(caller = :caller and size = :size and format = :format) as room
        from media_callers where media_id = :media_id) as known
    where exists (select from live_media where id = :media_id)
    on conflict (media_id, kind, caller, size, format)
        do update set requests = media_callers.requests + excluded.requests, last_at = now()
""")

_FORGET = text("delete from media_callers where last_at < now() - make_interval(days => :days)")

_OF_IMAGE = text("""
    select kind, caller, array_agg(distinct size) as sizes, array_agg(distinct format) as formats,
        cast(sum(requests) as bigint) as requests, max(last_at) as last_at
    from media_callers where media_id = :media_id group by kind, caller
    order by sum(media_callers.requests) desc, caller limit 20
""")
