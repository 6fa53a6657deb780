"""A download server that is hostile: endless, slow, cut, wrong, redirected, silent.

The process ends soon, in one line or with the data of a good second mirror; it takes little more
than the published size, and leaves nothing behind but files with the published content.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from campaign import MEGABYTE, Broken, Trial, run, start, status_of, words_of

import xpnet
from xpnet.commands import exits
from xpnet.data import catalog

KIND = "a hostile server is refused, or a good mirror asked"
SECONDS = 20.0
# What a connection may take: http.client reads at most 101 lines of 64 KiB of a head; and beside it
# the published size and a buffer.
GREED = 101 * (1 << 16) + MEGABYTE
NAMES = [f"{part}.gz" for part in catalog._PARTS]


@functools.cache
def published() -> dict[str, bytes]:
    """The four files of a small data set."""
    rng, files = np.random.default_rng(0), {}
    for name in NAMES:
        images = "images" in name
        shape = (20, 28, 28) if images else (20,)
        values = rng.integers(0, 256 if images else 10, shape).astype(np.uint8)
        head = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
        files[name] = gzip.compress(head + values.tobytes())
    return files


def _head(status: str = "200 OK", **fields: object) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def _good(content: bytes) -> Iterator[bytes]:
    yield _head(Content_Length=len(content)) + content


def _endless(content: bytes) -> Iterator[bytes]:
    yield _head()
    while True:
        yield bytes(1 << 16)


def _endless_head(content: bytes) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-Padding: " + b"x" * 50_000 + b"\r\n"


def _bomb(content: bytes) -> Iterator[bytes]:
    body = gzip.compress(bytes(100 * MEGABYTE))
    yield _head(Content_Encoding="gzip", Content_Length=len(body)) + body


def _slow(content: bytes) -> Iterator[bytes]:
    yield _head(Content_Length=len(content))
    for byte in content:
        time.sleep(0.1)
        yield bytes([byte])


def _slow_head(content: bytes) -> Iterator[bytes]:
    for byte in _head(Content_Length=len(content)) * 9:
        time.sleep(0.1)
        yield bytes([byte])


def _silent(content: bytes) -> Iterator[bytes]:
    time.sleep(SECONDS)
    yield b""


def _sent(*answers: bytes) -> Callable[[bytes], Iterator[bytes]]:
    return lambda content: iter(answers)


HOSTILE: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "endless": _endless,
    "endless head": _endless_head,
    "a gzip bomb": _bomb,
    "slow": _slow,
    "a slow head": _slow_head,
    "silent": _silent,
    "closed": _sent(),
    "not HTTP": _sent(b"\0\xff" * 500),
    "empty": _sent(_head(Content_Length=0)),
    "not found": _sent(_head("404 Not Found", Content_Length=0)),
    "unavailable": _sent(_head("503 No\r\nRetry-After: 99999", Content_Length=0)),
    "redirected in a circle": _sent(_head("302 Found", Location="/again", Content_Length=0)),
    "redirected to a file": _sent(_head("302 Found", Location="file:///etc/passwd")),
    "a wrong length": _sent(_head(Content_Length=-5), b"abc"),
    "an impossible length": _sent(_head(Content_Length=10**18), b"abc"),
    "bad chunks": _sent(_head(Transfer_Encoding="chunked"), b"zz\r\nabc"),
    "cut": lambda content: iter([_head(Content_Length=len(content)), content[: len(content) // 2]]),
    "other content": lambda content: _good(content[::-1]),
    "longer": lambda content: _good(content + b"more"),
}


class Server:
    """A server on this machine that answers with bytes of a kind."""

    def __init__(self, answers: Callable[[bytes], Iterator[bytes]]) -> None:
        self.answers, self.listener = answers, socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._reply, args=[connection], daemon=True).start()

    def _reply(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            path = connection.recv(1 << 16).split(b" ")[1].decode()
            for piece in self.answers(published().get(path[1:], b"")):
                connection.sendall(piece)


class Counted(socket.SocketIO):
    """A connection that counts what is read; what is sent may wait in the system's buffers."""

    most = taken = 0

    def readinto(self, buffer: Any) -> int | None:
        got = super().readinto(buffer)
        self.taken += got or 0
        Counted.most = max(Counted.most, self.taken)
        return got


def attempt(trial: Trial) -> Iterator[str]:
    name = trial.one_of(*HOSTILE)
    with_mirror = trial.rng.random() < 0.5
    hostile, good = Server(HOSTILE[name]), Server(_good)
    urls = (hostile.url, good.url) if with_mirror else (hostile.url,)
    files = tuple((len(c), hashlib.sha256(c).hexdigest()) for c in published().values())

    def command() -> int:
        os.environ["XDG_CACHE_HOME"] = str(trial.folder / "cache")
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * MEGABYTE, 64 * MEGABYTE))
        catalog._SOURCES = {"mnist": (urls, files)}
        catalog.START = 1.0  # seconds, where it allows a minute
        socket.SocketIO = Counted  # type: ignore[misc]

        def load() -> int:
            data, _ = xpnet.datasets.load("mnist")
            return 0 if len(data) == 20 else 9

        status = exits.run(load)
        (trial.folder / "taken").write_text(str(Counted.most))
        return status

    try:
        status = status_of(KIND, start(command, trial.folder), SECONDS)
        words = words_of(KIND, trial.folder)
    except Broken as fault:
        raise Broken(KIND, f"{name}: {fault}") from fault
    finally:
        for server in (hostile, good):
            server.listener.close()
    if status != (0 if with_mirror else 2) or len(words.splitlines()) != (status == 2):
        raise Broken(KIND, f"{name}: ends in {status}: {words}")
    if (taken := int((trial.folder / "taken").read_text())) > GREED:
        raise Broken(KIND, f"{name}: {taken:,} bytes were taken")
    for path in filter(Path.is_file, (trial.folder / "cache").glob("**/*")):
        if published().get(path.name) != path.read_bytes():
            raise Broken(KIND, f"{name}: leaves {path.name}")
    yield KIND


if __name__ == "__main__":
    sys.exit(run(attempt))
