"""The parts that run our own code: stand-in partners, gateway, and Dagster's code server, webserver and daemon.

One code server loads the definitions once for the webserver and the daemon, where `dagster dev` loads them for each.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import yaml  # type: ignore[import-untyped]

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.process import HttpPart, Part

WORKSPACE = "workspace.yaml"
LOCATION = "imgpipe"
"""Name of the code location; the same as in workspace.yaml, so that schedules and sensors keep their state."""


class StandIns(HttpPart):
    """The partner APIs that are not configured, in one process."""

    name = "stand-ins"
    module: ClassVar[str] = "imgpipe_orchestration.devstack.standins.app"

    def command(self) -> list[str]:
        flags = ["--host", LOOPBACK, "--port", str(self.port), "--log-level", "warning", "--no-access-log"]
        flags += ["--workers", "1"]  # whatever WEB_CONCURRENCY says: it keeps its state in memory
        return [sys.executable, "-m", "uvicorn", "--factory", f"{self.module}:create_app", *flags]


class Gateway(HttpPart):
    """The FastAPI app, on GATEWAY_PORT and FLASK_PORT of its environment."""

    name = "gateway"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "imgpipe_orchestration.gateway"]


class CodeServer(Part):
    """Serves the definitions to the webserver and the daemon, by gRPC."""

    name = "code-server"

    def command(self) -> list[str]:
        module = ["-m", "imgpipe_orchestration.definitions", "--location-name", LOCATION]
        flags = ["-h", LOOPBACK, "-p", str(self.port), "--use-python-environment-entry-point", "--log-level", "warning"]
        return [sys.executable, "-m", "dagster", "api", "grpc", *module, *flags, *_log_format(self.environ)]


class Webserver(HttpPart):
    """The Dagster UI and its GraphQL API."""

    name = "dagster-webserver"
    health_path = "/server_info"

    def command(self) -> list[str]:
        # It often starts before the code server, warns about that and connects later. Real errors in the definitions
        # are in the code server's log and in the UI.
        quiet = ["-W", "ignore:Error loading repository location:UserWarning"]
        flags = ["-p", str(self.port), "-w", str(self.folder / WORKSPACE), *_log_format(self.environ)]
        return [sys.executable, *quiet, "-m", "dagster_webserver", "-h", LOOPBACK, *flags]


class Daemon(Part):
    """Sensors, schedules, the run queue and run monitoring. It has no port: it answers while its process runs."""

    name = "dagster-daemon"
    url = ""

    def command(self) -> list[str]:
        # At `info` it writes two lines for every sensor tick that found nothing.
        flags = ["-w", str(self.folder / WORKSPACE), "--log-level", "warning", *_log_format(self.environ)]
        return [sys.executable, "-m", "dagster._daemon", "run", *flags]

    def answers(self) -> bool:
        return self.exit_code() is None


def _log_format(environ: Mapping[str, str] | None) -> list[str]:
    """Dagster's own flag for LOG_FORMAT=json."""
    return ["--log-format", "json"] if (environ or {}).get("LOG_FORMAT") == "json" else []


def prepare_dagster_home(folder: Path, configuration: Path, code_port: int, *, dev: bool = False) -> None:
    """Put `configuration` (our dagster.yaml) into DAGSTER_HOME, and a workspace file that points at our code server.

    `provision` has made Dagster's tables. Else each tick of a sensor looks for them, and that takes half of the tick.

    Args:
        dev: for `dagster dev`, whose runs are to have the code as it was reloaded: ours are forked from what was
            imported once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_load(configuration.read_text())
    if dev:
        values.pop("run_launcher", None)
    values["storage"]["postgres"]["should_autocreate_tables"] = False
    (folder / "dagster.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    server = {"host": LOOPBACK, "port": code_port, "location_name": LOCATION}
    (folder / WORKSPACE).write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
