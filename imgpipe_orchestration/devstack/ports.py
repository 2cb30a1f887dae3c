"""Which TCP ports on loopback are free, and which one each part of a stack gets."""

import contextlib
import fcntl
import json
import os
import random
import socket
import tempfile
from pathlib import Path

from imgpipe_orchestration.errors import SettingsError

LOOPBACK = "127.0.0.1"
_NOT_EPHEMERAL = range(20_000, 32_768)
"""Ports that Linux and macOS give to no outgoing connection, so that none takes one before its server listens."""


def free_port() -> int:
    """A port that nobody listens on at this moment.

    Raises:
        OSError: none is left.
    """
    for port in random.sample(_NOT_EPHEMERAL, len(_NOT_EPHEMERAL)):
        if is_free(port):
            return port
    raise OSError(f"no port of {_NOT_EPHEMERAL.start} to {_NOT_EPHEMERAL.stop - 1} is free")


def is_free(port: int) -> bool:
    """Whether a server could listen on `port`.

    Raises:
        SettingsError: not as this user.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except PermissionError:
            raise SettingsError(f"port {port} needs root; choose one from 1024 on") from None
        except OSError:
            return False
    return True


def listening(port: int) -> bool:
    """Whether somebody accepts connections on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


TYPED = {
    "gateway": ("GATEWAY_PORT", 8000),
    "auto-marker API": ("FLASK_PORT", 8098),
    "dagster-webserver": ("DAGSTER_WEBSERVER_PORT", 3000),
}
"""By part, the ports that people type: the setting that chooses one, and which is preferred. The other parts prefer
none: rows keep their URLs (pictures of avatars, a cron job's API), which would name another stack's servers where all
stacks preferred the same ports."""


class Ports:
    """Chooses the ports of a stack: the one asked for, else the one it had before, else the preferred, else a free one.

    A stack keeps its ports over restarts, so that bookmarks, exported URLs and those in its rows stay valid.
    """

    def __init__(self, file: Path) -> None:
        """
        Args:
            file: has the ports of the last start; `save` writes those of this one.
        """
        self._file = file
        self._before: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):  # after a power cut or on a full disk it is empty
            self._before = json.loads(file.read_text())
        self.chosen: dict[str, int] = {}
        self._held: list[int] = []
        self.notes: list[str] = []
        """One line for each port that people type and would not expect."""

    def choose(self, part: str, asked: str | None = None) -> int:
        """
        Args:
            asked: what the user set; 0 asks for any free port.

        Raises:
            SettingsError: `asked` is not a port, or not for this user.
        """
        setting, preferred = TYPED.get(part, ("", 0))
        if asked is not None and not (asked.isdecimal() and int(asked) <= 65535):
            raise SettingsError(f"{setting}: {asked!r} is not a port; give a number from 0 to 65535")
        port = wanted = int(asked) if asked is not None else self._before.get(part, preferred)
        if wanted and self._reserve(wanted):
            if setting and asked is None and port != preferred:
                self.notes.append(f"{part} uses port {port}, as at its last start")
        else:
            while not self._reserve(port := free_port()):
                pass
            if wanted:
                self.notes.append(f"port {wanted} is taken; {part} uses {port}")
        self.chosen[part] = port
        return port

    def _reserve(self, port: int) -> bool:
        """Reserve a port against other stacks until our part listens on it, which may be seconds from now.

        By a lock on a file, held until this process ends. Other programs are found by `is_free`.
        """
        folder = Path(tempfile.gettempdir()) / f"imgpipe-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._held.append(descriptor)
        return is_free(port)

    def release(self) -> None:
        """Give up the reservations."""
        while self._held:
            os.close(self._held.pop())

    def save(self) -> None:
        self._file.write_text(json.dumps(self._before | self.chosen, indent=2))
