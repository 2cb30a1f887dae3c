"""Everything a person has here, as a ZIP that is written while it is sent: memory does not grow with its size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain

from imgpipe_orchestration.kinds import KINDS
from imgpipe_orchestration.lifecycle.kind import Kind
from imgpipe_orchestration.lifecycle.zips import Archive
from imgpipe_orchestration.services import Services


def of_user(services: Services, user_id: int) -> Iterator[bytes]:
    """`images.json`, and the originals under their own names in a folder for each kind.

    The records are read twice, once for the list and once for the pictures, so that neither is ever in memory. A
    picture that cannot be read becomes a line in `missing.txt`, and does not break the download.

    Raises:
        BackendUnavailable: the database is away. It is asked before the download begins.
    """
    records = _records(services, user_id)
    return _written(services, user_id, chain([next(records)], records))


def _written(services: Services, user_id: int, records: Iterator[bytes]) -> Iterator[bytes]:
    archive = Archive()
    yield from archive.text("images.json", records)
    taken: set[str] = set()
    for kind in KINDS:
        bucket = kind.bucket(services)
        for one in kind.exported(services, user_id):
            if one.key:
                yield from archive.object(_free(f"{kind.folder}/{_plain(one.name)}", taken), bucket, one.key)
    yield from archive.end()


def _records(services: Services, user_id: int) -> Iterator[bytes]:
    """A JSON list of objects, one a line; each says of what kind it is."""
    begin = b"[\n"
    for kind, record in chain.from_iterable(_of_kind(services, user_id, kind) for kind in KINDS):
        line = json.dumps({"of": kind.pipeline, **record}, ensure_ascii=False, default=str)
        yield begin + line.encode()
        begin = b",\n"
    yield b"\n]\n" if begin == b",\n" else b"[]\n"


def _of_kind(services: Services, user_id: int, kind: Kind) -> Iterator[tuple[Kind, dict[str, object]]]:
    for one in kind.exported(services, user_id):
        yield kind, one.record


def _plain(name: str) -> str:
    """A file name that leads nowhere else when the ZIP is unpacked."""
    return "".join(" " if c in '/\\:*?"<>|' or not c.isprintable() else c for c in name).strip(" .") or "unnamed"


def _free(name: str, taken: set[str]) -> str:
    """The name, or with a number where there is one of that name."""
    stem, dot, extension = name.rpartition(".")
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{stem} ({number}).{extension}" if dot else f"{name} ({number})"
    taken.add(free.casefold())
    return free
