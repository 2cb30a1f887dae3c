"""The embedded MongoDB's process: nx-27017, with three things mended.

Booleans and dates stay what they are. neosqlite, below it, binds the values of `$set` as SQL parameters, and SQLite
knows neither: `true` would become 1 and a date a string. Its own way of updating in Python keeps them; here it is told
to take that one where it matters.

The updates of one message are one transaction of SQLite. Otherwise each of them is committed by itself, and the pages
they share are written for every one.

A projection takes the fields it names. Otherwise each document is copied whole before, a third of the time of `find`.

Should a later version mend one of them, its function can go: the tests of the queries on every server say so of the
first, `make bench-auto-marker` of the others.
"""

from __future__ import annotations

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


def commit_once_a_message() -> None:
    """Put a transaction around what handles an `update` command."""
    from nx_27017.handler import NeoSQLiteHandler

    handle = NeoSQLiteHandler.handle_command

    def handle_command(self: Any, message: dict[str, Any]) -> Any:
        command: dict[str, Any] = next((body for kind, body in message["sections"] if kind == "body"), {})
        # How durable it is cannot be changed within a transaction: one who asks for that gets the plain way.
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


def main() -> None:
    from nx_27017.nx_27017 import main as serve

    keep_types()
    commit_once_a_message()
    project_without_copying()
    serve()


if __name__ == "__main__":
    main()
