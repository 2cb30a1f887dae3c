"""The embedded MongoDB's process: nx-27017 with four patches.

1. `keep_types`: neosqlite, on which it stands, binds the values of `$set` as SQL parameters. SQLite has neither
   booleans nor dates, so `true` would become 1 and a date a string. Its other way of updating, in Python, keeps them.
2. `commit_once_a_message`: the updates of one message are one transaction. Without it each is committed alone, and the
   database pages that they share are written for each of them.
3. `project_without_copying`: a projection takes the named fields. Without it each document is first copied whole, which
   takes a third of the time of `find`.
4. `answer_where_it_was_read`: `find` and `update` are answered by the thread that has read them. Without it each is
   handed to another thread, and with several clients a fifth of a request's time is waiting for the interpreter lock.

A patch can go once a later version needs it no more: the tests of the queries on every server show that for the first,
`make bench-auto-marker` for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any


def keep_types() -> None:
    """Send updates that `$set` a boolean or a date past SQL."""
    from neosqlite.collection.query_helper._sql_updates import SqlUpdatesMixin

    in_sql = SqlUpdatesMixin._can_use_sql_updates

    def can_use_sql_updates(self: Any, update: dict[str, Any], *arguments: Any, **named: Any) -> bool:
        values = update.get("$set")
        if isinstance(values, dict) and any(isinstance(value, bool | datetime) for value in values.values()):
            return False
        return bool(in_sql(self, update, *arguments, **named))

    SqlUpdatesMixin._can_use_sql_updates = can_use_sql_updates


def _command(message: dict[str, Any]) -> dict[str, Any]:
    return next((body for kind, body in message.get("sections", ()) if kind == "body"), {})


def commit_once_a_message() -> None:
    """Put a transaction around what handles an `update` command."""
    from nx_27017.handler import NeoSQLiteHandler

    handle = NeoSQLiteHandler.handle_command

    def handle_command(self: Any, message: dict[str, Any]) -> Any:
        command = _command(message)
        # SQLite cannot change its durability within a transaction, so writeConcern needs the unpatched way.
        if "update" not in command or "writeConcern" in command:
            return handle(self, message)
        database = command.get("$db", "test")
        with self._lock_for(database):
            sqlite = self.get_database(database).db
            if sqlite.in_transaction:
                return handle(self, message)
            sqlite.execute("BEGIN")
            try:
                return handle(self, message)
            finally:
                sqlite.commit()

    NeoSQLiteHandler.handle_command = handle_command


def project_without_copying() -> None:
    """Take plainly named fields straight from the document."""
    from neosqlite.collection.query_helper.aggregation import AggregationMixin

    project = AggregationMixin._apply_projection

    def apply_projection(self: Any, projection: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
        plain = bool(projection) and all(wish == 1 and "." not in name for name, wish in projection.items())
        if not plain:
            return dict(project(self, projection, document))
        return {name: document[name] for name in ("_id", *projection) if name in document}

    AggregationMixin._apply_projection = apply_projection


def answer_where_it_was_read() -> None:
    """Keep `find` and `update` from other threads, unless the database is in use.

    Here those two are short, because they use indexes. Long commands (grouping, building an index) go to a thread as
    before, and so does what waits for them: `hello` must be answered meanwhile, or clients believe the server dead.
    """
    from nx_27017.handler import NeoSQLiteHandler

    in_thread = asyncio.to_thread

    async def to_thread(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        handler = getattr(function, "__self__", None)
        if isinstance(handler, NeoSQLiteHandler):
            command = _command(arguments[0])
            lock = handler._lock_for(command.get("$db", "test"))
            if ("find" in command or "update" in command) and lock.acquire(blocking=False):
                try:
                    return function(*arguments, **named)
                finally:
                    lock.release()
        return await in_thread(function, *arguments, **named)

    asyncio.to_thread = to_thread  # type: ignore[assignment]


def main() -> None:
    from nx_27017.nx_27017 import main as serve

    keep_types()
    commit_once_a_message()
    project_without_copying()
    answer_where_it_was_read()
    serve()


if __name__ == "__main__":
    main()
