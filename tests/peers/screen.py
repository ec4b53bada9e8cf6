"""A real terminal, as far as a program can tell: the kernel's own, with an emulator at its other end that obeys what is
written to it as the screen of a person would."""
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

from harness import PACKAGES, PATIENCE, binary, environment

sys.path.append(str(PACKAGES))
import pyte  # noqa: E402, for it is found there

# Sequences that a screen is drawn with: moving, erasing, attributes, modes. Anything else moves more than the screen.
DRAWN = re.compile(rb"\x1b\[[?]?[0-9;]*[HJKmhlABCDGdX]")


class Terminal:
    """One `switchboard` command in a terminal of its own. Use with `with`."""

    def __init__(self, *args, columns=80, rows=24, term="xterm-256color", **variables):
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw, self.ended = bytearray(), False
        self.args = [binary(), *map(str, args)]
        self.environment = {**environment(), "TERM": term, **variables}
        self.size = struct.pack("HHHH", rows, columns, 0, 0)

    def __enter__(self):
        self.master, slave = pty.openpty()
        # The terminal outlives the program, so that it is seen how it was left.
        self.slave = slave
        fcntl.ioctl(slave, termios.TIOCSWINSZ, self.size)
        self.before = termios.tcgetattr(slave)

        def own():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            self.args, stdin=slave, stdout=slave, stderr=slave, env=self.environment, preexec_fn=own
        )
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        with contextlib.suppress(OSError):
            os.close(self.slave)
        os.close(self.master)

    def press(self, keys):
        os.write(self.master, keys.encode())

    def resize(self, columns, rows):
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        # The kernel tells whoever stands in front; the program was started here without a shell that says who that is.
        self.process.send_signal(signal.SIGWINCH)

    def hear(self, seconds):
        """Takes in what is written within a time; whether there was anything."""
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self.master, 1 << 16)
        except OSError:
            piece = b""
        self.raw += piece
        self.stream.feed(piece)
        return bool(piece)

    def shows(self, *texts):
        """Waits until all of these are on the screen."""
        self.until(lambda: all(text in self.text() for text in texts), f"{texts} on the screen")

    def shows_cursor(self, column, row):
        """Waits until the cursor is there, counted from 0."""
        self.until(lambda: (self.screen.cursor.x, self.screen.cursor.y) == (column, row), f"the cursor at {column}, {row}")

    def until(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"not so within {PATIENCE} s: {what}:\n{self.text()}")
            self.hear(min(left, 0.1))

    def text(self):
        # The second half of a wide character is a cell with nothing in it.
        cells, columns = self.screen.buffer, range(self.screen.columns)
        return "\n".join("".join(cells[y][x].data for x in columns).rstrip() for y in range(self.screen.lines))

    def end(self):
        """Waits for the program's end; its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            self.hear(0.05)
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not end:\n{self.text()}")
        while self.hear(0):
            pass
        return self.process.returncode

    def is_given_back(self):
        """Whether the terminal is as it was found: line by line, its own screen, the cursor seen."""
        last = {mode: self.raw.rfind(mode + b"h") < self.raw.rfind(mode + b"l")
                for mode in (b"\x1b[?1049", b"\x1b[?2004", b"\x1b[?2026")}
        cursor = self.raw.rfind(b"\x1b[?25h") > self.raw.rfind(b"\x1b[?25l")
        return termios.tcgetattr(self.slave) == self.before and all(last.values()) and cursor

    def strange(self):
        """What was written that does not only draw: titles, clipboards, questions, other controls."""
        rest = DRAWN.sub(b"", bytes(self.raw)).decode()
        return sorted({c for c in rest if c not in "\n\r\t\a" and (ord(c) < 32 or 127 <= ord(c) < 160 or c in BIDI)})


BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
