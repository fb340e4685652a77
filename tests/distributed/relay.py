"""A relay between a node and its federation's proxy: it delays, holds back and cuts, as links do.

It needs no rights and no kernel with `netem`, and can disturb each direction alone. It holds TLS
records and no key.
"""

import contextlib
import socket
import threading
import time

UP, DOWN = "up", "down"  # from the node to the proxy, and back


class Relay:
    """Listens on a port of loopback, and hands on what comes to another.

    Attributes:
        port: where it listens.
        delay: seconds that each piece is held in each direction.
        held: directions in which nothing passes at present, while lines stay open.
        carried: bytes that passed, by direction.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lines: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.delay = {UP: 0.0, DOWN: 0.0}
        self.held: set[str] = set()
        self.refusing = False
        self.carried = {UP: 0, DOWN: 0}
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Cut every line, in the middle of whatever it carries; how many there were."""
        lines, self._lines = self._lines, []
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()
        return len(lines) // 2

    def close(self) -> None:
        """Carry nothing any more."""
        self.refusing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed
            if self.refusing:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), 10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._lines += [near, far]
            for way, source, drain in ((UP, near, far), (DOWN, far, near)):
                threading.Thread(target=self._carry, args=(way, source, drain), daemon=True).start()

    def _carry(self, way: str, source: socket.socket, drain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                time.sleep(self.delay[way])
                while way in self.held:
                    time.sleep(0.05)
                drain.sendall(piece)
                self.carried[way] += len(piece)
        for line in (source, drain):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
