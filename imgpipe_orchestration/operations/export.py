"""All images of a person, as a ZIP that is written while it is sent: memory does not grow with its size."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from sqlalchemy import text

from imgpipe_orchestration.lifecycle.kind import Exported, Kind
from imgpipe_orchestration.lifecycle.zips import Archive
from imgpipe_orchestration.operations.kinds import KINDS
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

_PAGE = 200
"""Rows that are read at a time."""


def of_user(services: Services, user_id: int) -> Iterator[bytes]:
    """`images.json`, and the originals under their own names in a folder for each kind.

    The records are read twice, once for the list and once for the pictures, so that neither is ever in memory. A
    picture that cannot be read becomes a line in `missing.txt`, and does not break the download.

    Raises:
        BackendUnavailable: the database, or that of the uploads, is away. It is asked before the download begins.
    """
    for kind in KINDS:
        kind.adopt(services, user_id, True)
    records = _records(services, user_id)
    return _written(services, user_id, chain([next(records)], records))


def _written(services: Services, user_id: int, records: Iterator[bytes]) -> Iterator[bytes]:
    archive = Archive()
    yield from archive.text("images.json", records)
    taken: set[str] = set()
    for kind in KINDS:
        bucket = kind.bucket(services)
        for one in _of_kind(services, user_id, kind):
            yield from archive.object(_free(f"{kind.folder}/{_plain(one.name)}", taken), bucket, one.key)
    yield from archive.end()


def _records(services: Services, user_id: int) -> Iterator[bytes]:
    """A JSON list of objects, one a line; each says of what kind it is."""
    begin = b"[\n"
    for kind in KINDS:
        for one in _of_kind(services, user_id, kind):
            line = json.dumps({"of": kind.pipeline, **one.record}, ensure_ascii=False, default=str)
            yield begin + line.encode()
            begin = b",\n"
    yield b"\n]\n" if begin == b",\n" else b"[]\n"


def _of_kind(services: Services, user_id: int, kind: Kind) -> Iterator[Exported]:
    """All that a person has of a kind, a page of rows at a time."""
    after: int | None = 0
    query = text(_ROWS.format(table=kind.table))
    while after is not None and kind.exported is not None:
        with transaction(services.engine) as connection:
            values = {"kind": kind.name, "user": user_id, "after": after, "limit": _PAGE}
            rows = connection.execute(query, values).mappings().all()
            found = [kind.exported(connection, row) for row in rows]
        for row, one in zip(rows, found, strict=True):
            trashed = row["trashed_at"]
            state = {"state": "trashed"} if trashed else {"state": "held"} if row["held"] else {}
            seen = {"deleted": row["deleted"] if trashed else None, "moderation": row["verdict"]}
            yield replace(one, record={**one.record, **state, **seen})
        after = rows[-1]["id"] if len(rows) == _PAGE else None


def _plain(name: str) -> str:
    """A file name that leads nowhere else when the ZIP is unpacked."""
    return "".join(" " if c in '/\\:*?"<>|' or not c.isprintable() else c for c in name).strip(" .") or "unnamed"


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number added if it is taken."""
    stem, dot, extension = name.rpartition(".")
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{stem} ({number}).{extension}" if dot else f"{name} ({number})"
    taken.add(free.casefold())
    return free


# With those in the trash, which are the person's still, and what was said of each.
_ROWS = """
    select t.*, d.trashed_at, jsonb_build_object('at', d.trashed_at, 'by', d.who, 'why', d.why) as deleted,
        (select jsonb_build_object('state', v.state, 'by', v.decided_by, 'at', v.decided_at, 'why', v.reason)
            from verdicts v where v.kind = :kind and v.item = t.id and v.state <> 'waiting') as verdict
    from {table} t left join deletions d on d.kind = :kind and d.item = t.id
    where t.user_id = :user and t.id > :after and d.purging_at is null and coalesce(d.purge_after > now(), true)
    order by t.id limit :limit
"""
