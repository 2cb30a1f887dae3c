"""The embedded document store: nx-27017, which speaks MongoDB's wire protocol over SQLite, with one file per database.

It is correct for the auto-marker's queries, and wrong for some others: see docs/auto_marker.md.
"""

import sys

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
    """Have documents updated in Python and not in SQL.

    neosqlite, on which nx-27017 stands, binds the values of `$set` as SQL parameters. SQLite has neither booleans nor
    dates, so `true` would become 1 and a date a string. The tests of the queries on every server show whether a later
    version still needs this.
    """
    from neosqlite.collection.query_helper._sql_updates import SqlUpdatesMixin

    SqlUpdatesMixin._can_use_sql_updates = lambda *_: False


if __name__ == "__main__":  # the server's own process
    from nx_27017.nx_27017 import main

    keep_types()
    main()
