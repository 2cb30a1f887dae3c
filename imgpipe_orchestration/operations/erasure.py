"""The erasure of a person: delete all their data in every pipeline, then sweep to check that nothing is left.

Each step can be repeated, so an erasure that was killed is taken up again where it was. Of two that are asked for at
once there is one. It is done when the sweep has found nothing; until then it is tried again, and at last failed.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.errors import NotFound, Planned, Retryable
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.operations import purge, sweep
from imgpipe_orchestration.operations.kinds import KINDS, USERS_QUEUES
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.claims import Claim, Item, Queue, State
from imgpipe_orchestration.storage.deletions import PURGES
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

ERASURE = "erasure"
"""The reason recorded with its deletions."""
MOST = 1_000_000
"""Things of a person, at most so many of which are counted."""


class NotErased(Retryable):
    """Something of the person is still there."""


class BeingPurged(Planned, NotErased):
    """A run of the purge is removing some of it."""


def _follow(connection: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
    if state is not State.DONE:
        values = {"ids": list(ids), "state": "failed" if state is State.FAILED else "running", "error": error}
        connection.execute(text("update erasures set state = :state, error = :error where id = any(:ids)"), values)


ERASURES = Queue("erasures", max_attempts=8, mirror=_follow)


def ask(services: Services, user_id: int, *, who: str) -> UUID:
    """Begin the erasure of a person, or find the one that has begun. From the answer on none of their data is shown."""
    audit.note(subject=str(user_id))
    with _alone(transaction(services.engine), user_id) as connection:
        erasure = connection.execute(_GO_ON, {"user": user_id}).one_or_none()
        erasure = erasure or connection.execute(_ASK, {"user": user_id, "who": who}).one()
        services.claims.enqueue(connection, ERASURES, [Item(erasure.id)], again=True)
    _hide(services, user_id, erasure.asked_by, lambda: transaction(services.engine))
    found: UUID = erasure.erasure_id
    return found


def find(connection: Connection, erasure_id: UUID) -> Row[Any]:
    """A row of `erasures`.

    Raises:
        NotFound: there is no such erasure.
    """
    row = connection.execute(text("select * from erasures where erasure_id = :id"), {"id": erasure_id}).one_or_none()
    if row is None:
        raise NotFound(f"There is no erasure {erasure_id}.")
    return row


def latest(connection: Connection, *, limit: int = 50) -> Sequence[Row[Any]]:
    """Erasures, the newest first."""
    return connection.execute(text("select * from erasures order by id desc limit :limit"), {"limit": limit}).all()


def counted(connection: Connection, user_id: int) -> dict[str, int]:
    """How many things of a user are not in the trash, by kind."""
    return {kind.name: len(kind.of_user(connection, user_id, MOST)) for kind in KINDS if kind.live}


@contextmanager
def _alone(writing: AbstractContextManager[Connection], user: int) -> Iterator[Connection]:
    """A transaction that waits for the others about the same person, with which it could deadlock."""
    with writing as connection:
        connection.execute(
            text("select pg_advisory_xact_lock(hashtextextended('erasure ' || :user, 0))"), {"user": user}
        )
        yield connection


def _hide(services: Services, user: int, who: str, writing: Callable[[], AbstractContextManager[Connection]]) -> None:
    """The things of a user that are shown go into the purge, some in a transaction."""
    for kind in KINDS:
        kind.adopt(services, user, False)
        hidden = True
        while hidden:
            with _alone(writing(), user) as connection:
                ids = kind.of_user(connection, user, purge.BATCH)
                hidden = bool(ids and trash.put(services, connection, kind, ids, who=who, why=ERASURE, days=0))


def erase(services: Services, claim: Claim) -> None:
    """Work on an erasure that is due.

    Raises:
        NotErased: something could not be removed, or the sweep found something.
        BackendUnavailable: a store is away.
    """
    with transaction(services.engine) as connection:
        query = text("select user_id, asked_by from erasures where id = :id")
        user, who = connection.execute(query, {"id": claim.item_id}).one()
    _hide(services, user, who, lambda: services.claims.fenced(claim))
    _purge_all(services, claim.owner, user)
    for kind in KINDS:  # objects that no row names, such as those of an upload that was broken off
        bucket = kind.bucket(services)
        bucket.delete_all(purge.under(bucket, kind.prefixes_of(user)))
    with services.claims.fenced(claim) as connection:
        rows = sum(kind.forget_user(services, connection, user) for kind in KINDS if kind.forget_user)
        pipelines = [kind.pipeline for kind in KINDS if kind.live]
        secrets = services.settings.digest_keys
        rows += deletions.forget_person(connection, user, USERS_QUEUES, pipelines, secrets=secrets)
    found = sweep.of_user(services, user)
    with services.claims.fenced(claim) as connection:
        values = {"id": claim.item_id, "verified": json.dumps({"objects": found.objects, "rows": found.rows})}
        connection.execute(_VERIFIED, values)
    if not found.clean:
        places = ", ".join(f"{place} ({count:,})" for place, count in found.where.items())
        raise NotErased(f"The sweep found something left in {places}")
    with services.claims.fenced(claim) as connection:
        connection.execute(_DONE, {"id": claim.item_id, "rows": rows})
        services.claims.finish(connection, ERASURES, claim)


def _purge_all(services: Services, owner: str, user: int) -> None:
    """Purge what is in the trash of a user, also what was there before.

    Raises:
        NotErased: some of it cannot be removed.
        BeingPurged: another worker has the rest.
    """
    while True:
        with transaction(services.engine) as connection:
            ids = deletions.of_user(connection, user, limit=purge.BATCH)
            whats = connection.scalars(text("select what from deletions where id = any(:ids)"), {"ids": ids})
            deletions.hasten(connection, services.claims, list(whats))
        if not ids:
            return
        services.claims.requeue(PURGES, ids)  # those that were given up before
        done = purge.purge_each(services, services.claims.claim_these(PURGES, owner, ids))
        for reason in done.retried.values():
            raise NotErased(reason, retry_after=2)
        if not done.done:
            raise BeingPurged("Another worker is removing the rest", retry_after=2)


# A failed one goes on as well.
_GO_ON = text("""
    update erasures set state = 'running', error = case when state = 'running' then error end
    where user_id = :user and state <> 'done' returning id, erasure_id, asked_by
""")

_ASK = text("insert into erasures (user_id, asked_by) values (:user, :who) returning id, erasure_id, asked_by")

_VERIFIED = text("""
    update erasures e set verified = cast(:verified as jsonb), counts = (
        select coalesce(jsonb_object_agg(kind, n), '{}') || jsonb_build_object('objects', coalesce(sum(objects), 0))
        from (select kind, count(*) as n, sum(objects) as objects from deletions d
            where d.user_id = e.user_id and d.purged_at >= e.created_at group by kind) as removed)
    where id = :id
""")

_DONE = text("""
    update erasures set state = 'done', error = null, finished_at = now(),
        counts = counts || jsonb_build_object('rows', cast(:rows as integer))
    where id = :id
""")
