"""The parts that run our own code: stand-in partners, gateway, and Dagster's code server, webserver and daemon.

One code server loads the definitions once for the webserver and the daemon, where `dagster dev` loads them for each.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from imgpipe_orchestration.devstack.http_part import HttpPart
from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.process import PROBE_SECONDS, Part

LOCATION = "imgpipe"
"""Name of the code location; the same as in workspace.yaml, so that schedules and sensors keep their state."""

_DATA, _HEADERS, _SETTINGS = 0, 1, 4
"""Types of HTTP/2's frames (RFC 9113, section 6)."""


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _header(name: str, value: str) -> bytes:
    """A literal header field without indexing (RFC 7541, section 6.2.2)."""
    return b"\0" + b"".join(bytes((len(text),)) + text.encode() for text in (name, value))


_HEALTH_CHECK = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + _frame(_SETTINGS, 0, 0)
    + _frame(
        _HEADERS,
        0x4,  # END_HEADERS
        1,
        _header(":method", "POST")
        + _header(":scheme", "http")
        + _header(":path", "/grpc.health.v1.Health/Check")
        + _header(":authority", "localhost")
        + _header("content-type", "application/grpc")
        + _header("te", "trailers"),
    )
    + _frame(_DATA, 0x1, 1, bytes(5))  # END_STREAM; an empty message
)
"""A connection with one gRPC request, by hand: the library takes 20 MB and a second to import."""


class StandIns(HttpPart):
    """The partner APIs that are not configured, in one process."""

    name = "stand-ins"

    def command(self) -> list[str]:
        module = "imgpipe_orchestration.devstack.standins"
        return [sys.executable, "-m", module, "--port", str(self.port), "--keep", str(self.folder)]


class Gateway(HttpPart):
    """The FastAPI app, on GATEWAY_PORT and FLASK_PORT of its environment."""

    name = "gateway"
    works_path = "/health/live"  # not /health, which also fails for backends that are away: a restart would not help

    def command(self) -> list[str]:
        return [sys.executable, "-m", "imgpipe_orchestration.gateway"]


class CodeServer(Part):
    """Serves the definitions to the webserver and the daemon, on a unix socket.

    Not on a TCP port: two gRPC servers can listen on the same port, and then each stack's requests reach either of
    them."""

    name = "code-server"
    start_seconds = 180
    hung_seconds = 120
    """Its threads may all wait for a database, which is given up after 70 s when it is frozen."""

    def __init__(self, folder: Path, *, environ: Mapping[str, str]) -> None:
        super().__init__(folder, 0, environ=environ)
        self.socket = code_socket(self.folder)

    @property
    def url(self) -> str:
        return f"unix:{self.socket}"

    def prepare(self) -> None:
        super().prepare()
        self.socket.unlink(missing_ok=True)

    def command(self) -> list[str]:
        module = ["-m", "imgpipe_orchestration.definitions", "--location-name", LOCATION]
        flags = ["--use-python-environment-entry-point", "--log-level", "warning"]
        return [sys.executable, "-m", "dagster", "api", "grpc", *module, "-s", str(self.socket), *flags]

    def answers(self) -> bool:
        """Whether one of the threads that answer requests answers. Connections are taken by others."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PROBE_SECONDS)
            try:
                probe.connect(str(self.socket))
                probe.sendall(_HEALTH_CHECK)
                with probe.makefile("rb") as answer:
                    while head := answer.read(9):
                        if head[3] == _HEADERS:
                            return True
                        answer.read(int.from_bytes(head[:3], "big"))
            except OSError:
                return False
        return False


class Webserver(HttpPart):
    """The Dagster UI and its GraphQL API."""

    name = "dagster-webserver"
    health_path = "/server_info"
    start_seconds = 180

    def __init__(self, folder: Path, port: int, *, environ: Mapping[str, str]) -> None:
        # It often starts before the code server, warns about that and connects later. Real errors in the definitions
        # are in the code server's log and in the UI.
        quiet = "ignore:Error loading repository location:UserWarning"
        super().__init__(folder, port, environ={**environ, "PYTHONWARNINGS": quiet})

    def command(self) -> list[str]:
        workspace = _workspace(self.folder)
        return [sys.executable, "-m", "dagster_webserver", "-h", LOOPBACK, "-p", str(self.port), "-w", str(workspace)]


class Daemon(Part):
    """Sensors, schedules, the run queue and run monitoring. It has no port: it answers while its process runs, and
    works while it writes the heartbeats that the Dagster UI shows.
    """

    name = "dagster-daemon"
    start_seconds = 180
    silence = "has written no heartbeat, by the clock,"
    silent_seconds = 180
    """Without a heartbeat for so long it hangs. It writes one every 30 s, the first after its imports, which take long
    on a busy machine."""
    ahead_seconds = 60
    """With a heartbeat so far ahead of the clock it waits for the clock, which was set back, and does nothing."""

    def __init__(self, folder: Path, *, environ: Mapping[str, str]) -> None:
        super().__init__(folder, 0, environ=environ)
        self._database = environ["DAGSTER_PG_URL"]

    @property
    def url(self) -> str:
        return ""

    def command(self) -> list[str]:
        workspace = _workspace(self.folder)
        # At `info` it writes two lines for every sensor tick that found nothing.
        return [sys.executable, "-m", "dagster._daemon", "run", "-w", str(workspace), "--log-level", "warning"]

    def answers(self) -> bool:
        return self.exit_code() is None

    def works(self) -> bool:
        """Also True when the database is away, because then nothing is known about the daemon."""
        import psycopg

        if time.monotonic() - self.started < self.silent_seconds:
            return True
        url = self._database.replace("postgresql+psycopg2:", "postgresql:", 1)
        query = """
            SELECT max(timestamp) - timezone('utc', now())
                BETWEEN make_interval(secs => %s) AND make_interval(secs => %s)
            FROM daemon_heartbeats"""
        try:
            with psycopg.connect(url, connect_timeout=PROBE_SECONDS) as connection:
                found = connection.execute(query, [-self.silent_seconds, self.ahead_seconds]).fetchone()
        except psycopg.Error:
            return True
        return found is None or found[0] is not False


def prepare_dagster_home(folder: Path, configuration: Path) -> None:
    """Put `configuration` (our dagster.yaml) into DAGSTER_HOME."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(configuration, folder / "dagster.yaml")


def code_socket(home: Path) -> Path:
    """The code server's socket: in DAGSTER_HOME, or in the temporary folder when that path is too long (107 bytes)."""
    near = home / "code.sock"
    if len(os.fsencode(near)) <= 100:
        return near
    return Path(tempfile.gettempdir()) / f"imgpipe-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}.sock"


def _workspace(home: Path) -> Path:
    """A workspace file that points at our one code server."""
    file = home / "workspace.yaml"
    server = {"socket": str(code_socket(home)), "location_name": LOCATION}
    file.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))  # JSON is YAML
    return file
