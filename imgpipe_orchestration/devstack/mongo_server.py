"""The embedded MongoDB's process: nx-27017, with booleans and dates kept as what they are.

neosqlite, below it, binds the values of `$set` as SQL parameters, and SQLite knows neither: `true` would become 1 and a
date a string. Its own way of updating in Python keeps them; here it is told to take that one where it matters. Should a
later version mend it, this file can go: the tests of the queries on every server say so.
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


def main() -> None:
    from nx_27017.nx_27017 import main as serve

    keep_types()
    serve()


if __name__ == "__main__":
    main()
