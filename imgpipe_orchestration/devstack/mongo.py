"""The embedded document store: nx-27017, which speaks MongoDB's wire protocol over SQLite, with one file per database.

It is correct for the auto-marker's queries, and wrong for some others: see docs/auto_marker.md.
"""

from __future__ import annotations

import socket
import struct
import sys

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.process import PROBE_SECONDS, Part

_OP_MSG = 2013
"""The wire protocol's one kind of message: flags, then a section of kind 0, a BSON document."""


class Mongo(Part):
    """A MongoDB endpoint over `folder`."""

    name = "mongo"

    @property
    def url(self) -> str:
        return f"mongodb://{LOOPBACK}:{self.port}"

    def answers(self) -> bool:
        """Whether it answers a `ping`. The message is made by hand, because each MongoClient starts threads."""
        import bson

        command = struct.pack("<IB", 0, 0) + bson.encode({"ping": 1, "$db": "admin"})
        with socket.socket() as probe:
            probe.settimeout(PROBE_SECONDS)
            try:
                probe.connect((LOOPBACK, self.port))
                probe.sendall(struct.pack("<iiii", 16 + len(command), 1, 0, _OP_MSG) + command)
                return bool(probe.recv(1))
            except OSError:
                return False

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
