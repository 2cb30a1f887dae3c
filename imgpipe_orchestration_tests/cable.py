"""A cable to a server that a test can cut: from then on nothing arrives, and nobody says so."""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from types import TracebackType
from typing import Self

_SO_ATTACH_FILTER = 26
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""One instruction of the kernel's packet filter: keep no byte. What it drops is not acknowledged."""


class Cable:
    """Passes bytes on between its port and that of a server on loopback. Linux only."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._take, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for end in (self._listener, *self._ends):
            end.close()

    def cut(self) -> None:
        """Every connection there is now goes silent; new ones come through."""
        program = ctypes.create_string_buffer(_DROP_ALL)
        for end in self._ends:
            end.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))

    def _take(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._server))
            self._ends.append(near)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        return
    finally:
        sink.close()
