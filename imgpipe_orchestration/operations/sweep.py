"""Looks for what is left of things that are said to be purged, and of people who are said to be erased.

It does not ask the code that removed them. It lists whole buckets, and asks the catalogue of the database which tables
have a column for a person. What is left of a thing is found by its number or by the digest of its address.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from sqlalchemy import Connection, text

from imgpipe_orchestration.lifecycle.kind import Kind
from imgpipe_orchestration.operations.kinds import KINDS, USERS_QUEUES
from imgpipe_orchestration.storage.deletions import digest, reporter_digests
from imgpipe_orchestration.storage.holdings import BATCH
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

SHOWN = 20
"""Keys that a report names."""
_OUR_RECORDS = {"deletions", "erasures"}
"""Tables that say who was deleted, and keep the number of the person."""
_OF_PEOPLE = ("user_id", "caller", "uploader")
_TENANTS = ("work_items", "work_turns")


@dataclass
class Swept:
    """What a sweep found left: objects by bucket, rows by table, fields of documents."""

    objects: int = 0
    rows: int = 0
    where: dict[str, int] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.objects or self.rows)

    def found(self, place: str, rows: int = 0, keys: Sequence[str] = ()) -> None:
        """Count what a place has."""
        if not (rows or keys):
            return
        self.where[place] = self.where.get(place, 0) + rows + len(keys)
        self.rows += rows
        self.objects += len(keys)
        self.keys += list(keys)[: SHOWN - len(self.keys)]


def of_everything(services: Services) -> Swept:
    """What is left of all that was ever purged."""
    swept = _of_buckets(services)
    with transaction(services.engine) as connection:
        connection.execute(_NO_HURRY)
        for kind in KINDS:
            swept.found("files of this machine", keys=[file.name for file in kind.strays(services)])
            for table, column in kind.tables.items():
                query = text(f"""
                    select count(*) from {table} t join deletions d on d.kind = :kind and d.item = t.{column}
                    where d.purged_at is not null
                """)
                swept.found(table, connection.scalar(query, {"kind": kind.name}) or 0)
        swept.found("paid_calls", connection.scalar(_ANSWERS, {"user": None}) or 0)
    return swept


def of_user(services: Services, user_id: int) -> Swept:
    """What is left of a person who was erased: objects, rows of any table, documents, kept and paid answers."""
    swept = _of_buckets(services, user_id)
    with transaction(services.engine) as connection:
        connection.execute(_NO_HURRY)
        # Every table that has a column for a person, also such as no feature told us of.
        for table, column in connection.execute(_CATALOGUE, {"columns": list(_OF_PEOPLE), "ours": list(_OUR_RECORDS)}):
            query = text(f'select count(*) from "{table}" where cast("{column}" as text) in (:user, :named)')
            names = {"user": str(user_id), "named": f"user_{user_id}"}
            swept.found(table, connection.scalar(query, names) or 0)
        for table in _TENANTS:
            query = text(f"select count(*) from {table} where tenant = :user and queue = any(:queues)")
            swept.found(table, connection.scalar(query, {"user": str(user_id), "queues": USERS_QUEUES}) or 0)
        reporters = reporter_digests(services.settings.digest_keys, f"user {user_id}")
        query = text("select count(*) from reports where reporter = any(:reporters)")
        swept.found("reports", connection.scalar(query, {"reporters": reporters}) or 0)
        swept.found("paid_calls", connection.scalar(_ANSWERS, {"user": user_id}) or 0)
        pipelines = sorted({kind.pipeline for kind in KINDS if kind.live})
        uses = {"user": str(user_id), "pipelines": pipelines}
        swept.found("paid_call_uses", connection.scalar(_USES, uses) or 0)
        swept.found("spending_tenants", connection.scalar(_SPENDING, uses) or 0)
    if services.pending_engine is not services.engine:
        with transaction(services.pending_engine) as connection:
            query = text("select count(*) from pending_images where user_id = :user")
            swept.found("pending_images", connection.scalar(query, {"user": user_id}) or 0)
    if services.settings.mongodb_url:
        for name, count in services.documents.naming(user_id).items():
            swept.found(f"MongoDB {name}", count)
    return swept


def _of_buckets(services: Services, user_id: int | None = None) -> Swept:
    """The objects that are left of what was purged, and all of a user who is named."""
    swept = Swept()
    for pipeline in dict.fromkeys(kind.pipeline for kind in KINDS):  # each has one bucket
        kinds = [kind for kind in KINDS if kind.pipeline == pipeline]
        beginnings = () if user_id is None else tuple(prefix for kind in kinds for prefix in kind.prefixes_of(user_id))
        stored = kinds[0].bucket(services).list()
        while keys := [one.key for one in islice(stored, BATCH)]:
            left = {key for key in keys if key.startswith(beginnings)}
            with transaction(services.engine) as connection:
                for kind in kinds:
                    left |= _of_purged(services, connection, kind, keys, user_id)
            swept.found(f"bucket of {pipeline}", keys=sorted(left))
    return swept


def _of_purged(
    services: Services, connection: Connection, kind: Kind, keys: Sequence[str], user_id: int | None = None
) -> set[str]:
    """Those of some keys that belong to purged things of a kind, of a user or of anybody."""
    ids: list[int | None] = []
    for key in keys:
        match = re.search(kind.item_of, key) if kind.item_of else None
        ids.append(next((int(group) for group in match.groups() if group), None) if match else None)
    secrets = services.settings.digest_keys
    digests = [digest(secret, key) for secret in secrets for key in keys]
    asked = {"keys": [*keys] * len(secrets), "ids": ids * len(secrets), "digests": digests}
    values = asked | {"kind": kind.name, "user": user_id}
    return set(connection.scalars(_PURGED_KEYS, values))


# Whole tables are read, for as long as that takes.
_NO_HURRY = text("set local statement_timeout = 0")

# Callers of images are hosts and programs.
_CATALOGUE = text("""
    select c.table_name, c.column_name from information_schema.columns c
    join information_schema.tables t using (table_schema, table_name)
    where table_schema = current_schema() and t.table_type = 'BASE TABLE' and c.column_name = any(:columns)
    and table_name <> all(:ours) and table_name <> 'media_callers' order by 1, 2
""")

_PURGED_KEYS = text("""
    select asked.key from unnest(cast(:keys as text[]), cast(:ids as bigint[]), cast(:digests as uuid[]))
        as asked (key, id, digest)
    where exists (select from deletions d where d.kind = :kind and d.item = asked.id and d.purged_at is not null
        and (cast(:user as bigint) is null or d.user_id = :user))
    or exists (select from deletions d where d.addresses @> array[asked.digest] and d.kind = :kind
        and d.purged_at is not null and (cast(:user as bigint) is null or d.user_id = :user))
""")

# Every use of which is of a purged thing. The item of a part is the name of the thing and one more: `task_1/persona_2`.
_ANSWERS = text("""
    select count(*) from paid_calls c where exists (
        select from paid_call_uses u join deletions d on d.what in (u.item, substring(u.item from '^(.*)/[^/]*$'))
        where u.key = c.key and d.purged_at is not null and (cast(:user as bigint) is null or d.user_id = :user))
    and not exists (select from paid_call_uses u where u.key = c.key and u.outcome <> 'lost' and not exists (
        select from deletions d where d.purged_at is not null
        and d.what in (u.item, substring(u.item from '^(.*)/[^/]*$'))))
""")

_USES = text("select count(*) from paid_call_uses where tenant = :user and pipeline = any(:pipelines)")
_SPENDING = text("select count(*) from spending_tenants where tenant = :user")
