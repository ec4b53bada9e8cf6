"""However much commands say at once, what the service holds of it stays within its budgets, and is given back."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import struct
import threading
import unittest

from harness import SOAK, Service, eventually, receive
from shell_case import read_frame

MIB = 1 << 20
# The documented bounds: a quarter of memory and 1 GiB of spools, a sixteenth of memory and 64 MiB besides.
MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
SPOOLED, KEPT = min(1024 * MIB, MEMORY // 4), min(64 * MIB, MEMORY // 16)
AT_ONCE = 50 if SOAK else 12


def drain(connection):
    """The header of an answer whose body is read and dropped."""
    (size,) = struct.unpack("<i", receive(connection, 4))
    header = json.loads(receive(connection, size))
    left, room = header["len"], bytearray(MIB)
    while left:
        left -= connection.recv_into(room, min(left, MIB))
    return header


class Flood(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        shell = {"protocol": "shell", "policy": "any", "sandbox": {"max_concurrent_commands": AT_ONCE}}
        cls.service = Service(flood=shell | {"limits": {"max_sessions_per_source": 2 * AT_ONCE}}).during(cls)

    def spooled(self):
        """Bytes in the files without a name that the service has open."""
        total = 0
        for entry in pathlib.Path(f"/proc/{self.service.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if "memfd:" in os.readlink(entry):
                    total += os.stat(entry).st_blocks * 512
        return total

    def resident(self):
        """Its own memory, without what of it is a file's."""
        lines = pathlib.Path(f"/proc/{self.service.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

    def flood(self, command):
        """The same command on many connections at once. The headers, and the most that was held meanwhile."""
        before, peaks, over = self.resident(), [0, 0], threading.Event()

        def watch():
            while not over.wait(0.01):
                for i, now in enumerate((self.spooled(), self.resident() - before)):
                    peaks[i] = max(peaks[i], now)

        def visit(_):
            with self.service.connect("flood") as connection:
                connection.settimeout(60)
                connection.sendall(command)
                return drain(connection)

        watcher = threading.Thread(target=watch)
        watcher.start()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            headers = list(pool.map(visit, range(AT_ONCE)))
        over.set()
        watcher.join()
        return headers, peaks

    def test_endless_output(self):
        for command in (b"yes", b"head -c 10G /dev/zero", b"yes >&2"):
            with self.subTest(command):
                headers, (spooled, resident) = self.flood(command)
                self.assertEqual({h["truncated"] for h in headers}, {True})
                codes = {h["error"]["code"] for h in headers if "error" in h}
                self.assertLessEqual(codes, {"spool_full"})
                # Besides, each may end with a line about itself.
                self.assertLessEqual(spooled, SPOOLED + AT_ONCE * 8192)
                self.assertLessEqual(resident, KEPT + 48 * MIB)
                eventually(lambda: self.spooled() == 0, "the spools are gone")
                with self.service.connect("flood") as connection:
                    connection.sendall(b"head -c 20000000 /dev/zero")
                    header, body = read_frame(connection)
                    self.assertEqual((header["len"], header["truncated"]), (20_000_000, False))
                    self.assertEqual(body.count(0), 20_000_000)


if __name__ == "__main__":
    unittest.main()
