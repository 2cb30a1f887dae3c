"""A cable to a server that a test can cut: from then on nothing arrives, and nobody says so."""

import ctypes
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

_SO_ATTACH_FILTER = 26
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""One instruction of the kernel's packet filter: keep no byte. What it drops is not acknowledged."""


class Cable:
    """Passes bytes on between its port and that of a server on loopback. Linux only.

    Args:
        heard: whether a connection is one of those that can be silenced, by some bytes of it.
        at_once: silence them with these bytes.
    """

    def __init__(self, port: int, heard: Callable[[bytes], bool] = lambda _: False, *, at_once: bool = False) -> None:
        self._server = port
        self._heard, self._at_once = heard, at_once
        self._heard_on: list[threading.Event] = []
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._take, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends the wait in `accept`, which `close` does not
        for end in (self._listener, *self._ends):
            end.close()

    def cut(self) -> None:
        """Every connection there is now goes silent; new ones come through."""
        program = ctypes.create_string_buffer(_DROP_ALL)
        for end in self._ends:
            end.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))

    def silence(self) -> int:
        """Connections on which it was heard stay open, and nothing passes any more; returns how many there are."""
        for silent in self._heard_on:
            silent.set()
        return len(self._heard_on)

    def _take(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._server))
            self._ends.append(near)
            silent = threading.Event()
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink, silent), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, silent: threading.Event) -> None:
        try:
            while data := source.recv(65536):
                if self._heard(data):
                    if self._at_once:
                        silent.set()
                    self._heard_on.append(silent)
                if not silent.is_set():
                    sink.sendall(data)
        except OSError:
            return
        finally:
            sink.close()
