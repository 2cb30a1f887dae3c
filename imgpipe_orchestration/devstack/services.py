"""The parts that run our own code: stand-in partners, gateway, and Dagster's code server, webserver and daemon.

One code server loads the definitions once for the webserver, the daemon and every run it starts, where `dagster dev`
loads them twice.
"""

from __future__ import annotations

import http.client
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.process import Part

LOCATION = "imgpipe"
"""Name of the code location; the same in workspace.yaml, so that schedules and sensors keep their state."""


class _HttpPart(Part):
    """A part that is ready once `health_path` is answered."""

    health_path: ClassVar[str] = "/health"

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def answers(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=2)
        try:
            connection.request("GET", self.health_path)
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class StandIns(_HttpPart):
    """The partner APIs that are not configured, in one process."""

    name = "stand-ins"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "imgpipe_orchestration.devstack.standins", "--port", str(self.port)]


class Gateway(_HttpPart):
    """The FastAPI app, on GATEWAY_PORT and FLASK_PORT of its environment."""

    name = "gateway"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "imgpipe_orchestration.gateway"]


class CodeServer(Part):
    """Serves the definitions to the webserver and the daemon, and starts the runs."""

    name = "code-server"
    start_seconds = 180
    stop_signal = signal.SIGINT  # Dagster's run workers report an interrupted run on either; the server only on this

    @property
    def url(self) -> str:
        return f"grpc://{LOOPBACK}:{self.port}"

    def command(self) -> list[str]:
        module = ["-m", "imgpipe_orchestration.definitions", "--location-name", LOCATION]
        address = ["-h", LOOPBACK, "-p", str(self.port)]
        flags = ["--use-python-environment-entry-point", "--log-level", "warning"]
        return [sys.executable, "-m", "dagster", "api", "grpc", *module, *address, *flags]


class Webserver(_HttpPart):
    """The Dagster UI and its GraphQL API."""

    name = "dagster-webserver"
    health_path = "/server_info"
    start_seconds = 180

    def __init__(self, folder: Path, port: int, *, code_port: int, environ: Mapping[str, str]) -> None:
        super().__init__(folder, port, environ=environ)
        self.code_port = code_port

    def command(self) -> list[str]:
        workspace = _workspace(self.folder, self.code_port)
        return [sys.executable, "-m", "dagster_webserver", "-h", LOOPBACK, "-p", str(self.port), "-w", str(workspace)]


class Daemon(Part):
    """Sensors, schedules, the run queue and run monitoring. It has no port: it is up while its process is."""

    name = "dagster-daemon"
    start_seconds = 180

    def __init__(self, folder: Path, *, code_port: int, environ: Mapping[str, str]) -> None:
        super().__init__(folder, 0, environ={**environ, "IMGPIPE_PRELOAD_RUNS": "1"})
        self.code_port = code_port

    @property
    def url(self) -> str:
        return ""

    def command(self) -> list[str]:
        workspace = _workspace(self.folder, self.code_port)
        # At `info` it writes two lines for every sensor tick that found nothing.
        return [sys.executable, "-m", "dagster._daemon", "run", "-w", str(workspace), "--log-level", "warning"]

    def answers(self) -> bool:
        return self.exit_code() is None


def prepare_dagster_home(folder: Path, configuration: Path) -> None:
    """Put `configuration` (our dagster.yaml) into DAGSTER_HOME."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(configuration, folder / "dagster.yaml")


def _workspace(home: Path, code_port: int) -> Path:
    """A workspace file that points at our one code server."""
    file = home / "workspace.yaml"
    server = f"{{host: {LOOPBACK}, port: {code_port}, location_name: {LOCATION}}}"
    file.write_text(f"load_from:\n  - grpc_server: {server}\n")
    return file
