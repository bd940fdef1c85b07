"""A network that misbehaves: a TCP proxy on loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class BadNetwork:
    """Cuts, swallows (connections stay open, bytes vanish), refuses, slows down, and leaves connections half open."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.refusing = self.swallowing = self.slow = False
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            try:
                if self.refusing:
                    raise ConnectionRefusedError
                far = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:
                near.close()
                continue
            self.pairs.append((near, far))
            for one, other in ((near, far), (far, near)):
                self.threads.append(threading.Thread(target=self.forward, args=(one, other)))
                self.threads[-1].start()

    def forward(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := one.recv(1024 if self.slow else 65_536):
                if self.slow:
                    time.sleep(0.1)
                if not self.swallowing:
                    other.sendall(chunk)
        self.shut(one, other)

    def shut(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for pair in list(self.pairs):
            self.shut(*pair)

    def half_open(self) -> None:
        """The broker sees its side end; the device sees nothing."""
        self.swallowing = True
        for _, far in list(self.pairs):
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.shut(self.server)
        self.server.close()
        self.cut()
        for thread in self.threads:
            thread.join()
        for pair in self.pairs:
            for each in pair:
                each.close()
