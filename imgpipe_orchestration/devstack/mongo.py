"""The embedded document store: nx-27017, which speaks MongoDB's wire protocol over SQLite, with one file per database.

It is correct for the auto-marker's queries, and wrong for some others: see docs/auto_marker.md.
"""

from __future__ import annotations

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
        module = "imgpipe_orchestration.devstack.mongo_server"
        return [sys.executable, "-m", module, "--host", LOOPBACK, "-p", str(self.port), *arguments]
