"""The embedded document store: nx-27017, which speaks MongoDB's wire protocol over SQLite, with one file per database.

It is correct for the auto-marker's queries, and wrong for some others: see docs/auto_marker.md.
"""

import sys
from datetime import datetime
from typing import Any

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.process import Part


class Mongo(Part):
    """A MongoDB endpoint over `folder`."""

    name = "mongo"

    @property
    def url(self) -> str:
        return f"mongodb://{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        """Also removes its pid file: with one that a crash left it refuses to start."""
        super().prepare()
        (self.folder / "pid").unlink(missing_ok=True)

    def command(self) -> list[str]:
        # One file for everything (`--db`) would show every collection in every database.
        files = {"--data-dir": "databases", "--pid-file": "pid", "--log-file": "nx.log"}
        arguments = [word for flag, name in files.items() for word in (flag, str(self.folder / name))]
        return [sys.executable, "-m", __name__, "--host", LOOPBACK, "-p", str(self.port), *arguments]


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


if __name__ == "__main__":  # the server's own process
    from nx_27017.nx_27017 import main

    keep_types()
    main()
