"""How much memory the server needs while a large object passes, and how long it takes.

    .venv/bin/python bench/objects.py [--gigabytes 5]

Puts one object with a single request, reads it back, and watches the server's resident memory all the while.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import threading
import time
from pathlib import Path

from clary.clients.connect import connect
from clary.clients.demo import serving

PIECE = bytes(range(256)) * 4096  # 1 MiB


class Zeros(io.RawIOBase):
    """A file of ``size`` bytes that lies nowhere."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = {0: 0, 1: self._position, 2: self._size}[whence] + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        start = self._position % len(PIECE)
        piece = PIECE[start : start + min(len(buffer), self._size - self._position)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def resident_megabytes(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--gigabytes", type=float, default=5)
    size = int(options.parse_args().gigabytes * 1024**3)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data") as server:
        client = connect(Path(folder) / "data", server, "s3", timeout_seconds=600)
        client.create_bucket(Bucket="bench")
        highest, ended = [resident_megabytes(server.process_id)], threading.Event()
        before = highest[0]

        def watch() -> None:
            while not ended.wait(0.05):
                highest[0] = max(highest[0], resident_megabytes(server.process_id))

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter()
        client.put_object(Bucket="bench", Key="large", Body=Zeros(size))
        put = time.perf_counter() - started
        started, read = time.perf_counter(), 0
        for piece in client.get_object(Bucket="bench", Key="large")["Body"].iter_chunks(1024**2):
            read += len(piece)
        got = time.perf_counter() - started
        ended.set()
        watcher.join()
        assert read == size
        rate = size / 1024**2
        print("| what | figure |\n|---|---|")
        print(f"| object | {size / 1024**3:g} GiB, one PutObject, one GetObject |")
        print(f"| put | {put:.1f} s ({rate / put:.0f} MiB/s, the client's hashing included) |")
        print(f"| get | {got:.1f} s ({rate / got:.0f} MiB/s) |")
        print(f"| server's resident memory | {before:.0f} MB before, {highest[0]:.0f} MB at most |")


if __name__ == "__main__":
    main()
