"""The embedded MongoDB's process: nx-27017 with one patch, which keeps the types of what `$set` writes."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def keep_types() -> None:
    """Send updates that `$set` a boolean or a date past SQL.

    neosqlite, on which nx-27017 stands, binds these values as SQL parameters. SQLite has neither booleans nor dates, so
    `true` would become 1 and a date a string. Its other way of updating, in Python, keeps them. The tests of the
    queries on every server show whether a later version still needs this.
    """
    from neosqlite.collection.query_helper._sql_updates import SqlUpdatesMixin

    in_sql = SqlUpdatesMixin._can_use_sql_updates

    def can_use_sql_updates(self: Any, update: dict[str, Any], *arguments: Any, **named: Any) -> bool:
        values = update.get("$set")
        if isinstance(values, dict) and any(isinstance(value, bool | datetime) for value in values.values()):
            return False
        return bool(in_sql(self, update, *arguments, **named))

    SqlUpdatesMixin._can_use_sql_updates = can_use_sql_updates


if __name__ == "__main__":
    from nx_27017.nx_27017 import main

    keep_types()
    main()
