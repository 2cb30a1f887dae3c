"""Named keys for machines: made once, shown once, stored as a hash.

A key is `imgp_` and 32 random characters. Those 190 bits cannot be guessed, so one SHA-256 is enough for the stored
hash: a slow hash protects passwords that people choose.
"""

import hashlib
import re
import secrets
import string
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, text

from imgpipe_orchestration.errors import BadInput, Conflict, NotFound
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.identity.model import Caller, Kind, Role
from imgpipe_orchestration.storage.rows import transaction

PREFIX = "imgp_"
KNOWN_SECONDS = 5.0
"""A gateway trusts a key for this long before it asks the database again, so a revoked key stops within 6 s."""
MOST_KNOWN = 10_000

_NAME = re.compile(r"[\w .@:/-]{1,80}")
_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key as lists show it: everything but the key."""

    id: int
    name: str
    role: Role
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None


def create(engine: Engine, name: str, role: Role, *, by: str, days: float | None = None) -> tuple[NamedKey, str]:
    """A new key: its row, and the key itself, which cannot be retrieved later.

    Args:
        days: how long the key lives. None: until somebody revokes it.

    Raises:
        BadInput: the name has unusable characters, or the lifetime is out of range.
        Conflict: a key of that name works already.
    """
    name = name.strip()
    if not _NAME.fullmatch(name) or {".", ".."} & set(name.split("/")):  # which clients resolve in an address
        words = "A key's name has 1 to 80 letters, digits, spaces or . @ : / - _, and no . or .. alone between slashes"
        raise BadInput(words, field="name")
    if days is not None and not 0 < days <= 36_525:
        raise BadInput("A key expires after more than 0 and at most 36525 days.", field="expires_days")
    key = PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(32))
    values = {"name": name, "role": role.value, "hash": _hash(key), "by": by, "days": days}
    with transaction(engine) as connection:
        connection.execute(_FREE_NAME, values)
        row = connection.execute(_CREATE, values).one_or_none()
        if row is None:
            raise Conflict(f"There is a key named {name!r} already. Revoke it first, or choose another name.")
    return _read(row), key


def every(engine: Engine) -> list[NamedKey]:
    """All keys, the newest first, revoked and expired ones too."""
    with transaction(engine) as connection:
        return [_read(row) for row in connection.execute(_LIST)]


def revoke(engine: Engine, name: str) -> NamedKey:
    """End a key, by its name. It stops working at this gateway at once and at every other within KNOWN_SECONDS.

    Raises:
        NotFound: no key of that name works.
    """
    with transaction(engine) as connection:
        row = connection.execute(_REVOKE, {"name": name.strip()}).one_or_none()
        audit.note(before={"role": row.role, "expires_at": row.expires_at} if row else None)
    if row is None:
        raise NotFound(f"There is no key named {name!r} that still works.")
    _known.clear()
    return _read(row)


def find(engine: Engine, given: str) -> Caller | None:
    """Whose key it is; None for one that is unknown, expired or revoked.

    Raises:
        BackendUnavailable: the database is away, and the key was not used here in the last seconds.
    """
    if not given.startswith(PREFIX):
        return None
    if (known := recently(engine, given)) is not None:
        return known
    with transaction(engine) as connection:
        row = connection.execute(_FIND, {"hash": _hash(given)}).one_or_none()
    if row is None:
        return None
    caller = Caller(row.name, Kind.KEY, Role(row.role))
    seconds = KNOWN_SECONDS if row.seconds_left is None else min(KNOWN_SECONDS, row.seconds_left)
    with _lock:
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        _known[str(engine.url), _hash(given)] = (caller, time.monotonic() + seconds)
    return caller


def recently(engine: Engine, given: str) -> Caller | None:
    """Whose key it is, if it was found in the last seconds. Asks no database."""
    caller, until = _known.get((str(engine.url), _hash(given)), (None, 0.0))
    return caller if time.monotonic() < until else None


_lock = threading.Lock()
_known: dict[tuple[str, bytes], tuple[Caller, float]] = {}
"""Keys that this process found lately. Wrong keys are not cached: anybody can send any number of them."""


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _read(row: Row[Any]) -> NamedKey:
    return NamedKey(row.id, row.name, Role(row.role), row.created_at, row.created_by, row.expires_at, row.revoked_at)


_WORKS = "revoked_at is null and (expires_at is null or expires_at > now())"
_LIST = text("select * from api_keys order by created_at desc, id desc")
_FIND = text(f"""
    select name, role, cast(extract(epoch from expires_at - now()) as float8) as seconds_left
    from api_keys where hash = :hash and {_WORKS}
""")
_FREE_NAME = text("update api_keys set revoked_at = expires_at where name = :name and expires_at <= now()")
_CREATE = text("""
    insert into api_keys (name, role, hash, created_by, expires_at)
    values (:name, :role, :hash, :by, now() + make_interval(secs => 86400 * cast(:days as float8)))
    on conflict (name) where revoked_at is null do nothing returning *
""")
_REVOKE = text(f"update api_keys set revoked_at = now() where name = :name and {_WORKS} returning *")
