"""What strangers have said, shown in a terminal: an emulator with the attacks' own eyes stays as it was but for the text.

The command writes to a terminal of the kernel's; what comes out of that is given to the emulator, of which every method
that does more than write text and go to the next line counts as obeyed.
"""
import contextlib
import fcntl
import os
import pathlib
import pty
import struct
import subprocess
import sys
import termios
import unittest

from harness import HERE, Service, binary, connect, environment, eventually, prefixed

# Where `tests/run --tools` puts what is not in Python's own library.
sys.path.append(os.environ.get("SWITCHBOARD_PYTHON", str(HERE.parents[1] / "target/tools/python")))
import pyte  # noqa: E402, for it is found there
import wcwidth  # noqa: E402

ATTACKS = pathlib.Path(HERE.parent, "it/desk_text/attacks.tsv")
# Wide enough that no line is continued on the next.
COLUMNS = 5_000
# What a terminal does for plain text in colour; the line end is the kernel's CR LF.
PLAIN = {"draw", "linefeed", "carriage_return", "select_graphic_rendition"}


def attacks():
    for line in ATTACKS.read_text().splitlines():
        name, spelled = line.split("\t")
        yield name, spelled.encode().decode("unicode_escape").encode("latin-1")


class Told:
    """Stands between what is written and the screen, and remembers what that was told to do."""

    def __init__(self, screen):
        self.screen, self.told = screen, set()

    def __getattr__(self, name):
        act = getattr(self.screen, name)
        if name not in pyte.Stream.events:
            return act

        def tell(*args, **options):
            self.told.add(name)
            return act(*args, **options)

        return tell


class Shown(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        chat = {"protocol": "chat", "framing": "length", "limits": {"max_sessions_per_source": 1000}}
        cls.service = Service(
            text=chat, gb18030=chat | {"encoding": "gb18030"}, auto=chat | {"encoding": "auto"},
            bytes=chat | {"encoding": "bytes"},
        ).during(cls)
        cls.talks = contextlib.ExitStack()
        cls.addClassCleanup(cls.talks.close)
        cls.listeners = ("text", "gb18030", "auto", "bytes")
        all_of_them = list(attacks())
        for listener in cls.listeners:
            for _, said in all_of_them:
                talk = cls.talks.enter_context(contextlib.closing(connect(cls.service.port(listener))))
                talk.sendall(prefixed(said))
            heard = lambda: len(cls.service.ask("chat", "inbox", listener).get("conversations", []))
            eventually(lambda: heard() == len(all_of_them), "all of them at the desk")
        # They come in by operators, too.
        for _, said in all_of_them[::10]:
            text = said.decode(errors="ignore").replace("\0", "")
            name = cls.service.ask("chat", "inbox", "text")["conversations"][0]["name"]
            cls.service.cli("chat", "reply", name, text or "-", "--operator", text)

    def terminal(self, *args, columns=COLUMNS):
        """What a command writes to a terminal."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 4_000, columns, 0, 0))
        command = [binary(), *args, "--endpoint", f"http://127.0.0.1:{self.service.port('grpc')}"]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=environment() | {"TERM": "xterm-256color"}
        )
        os.close(slave)
        written = bytearray()
        # A terminal whose program has ended is a broken one.
        with contextlib.suppress(OSError):
            while piece := os.read(master, 1 << 16):
                written += piece
        os.close(master)
        self.assertEqual(process.wait(), 0, (args, bytes(written)[-500:]))
        return bytes(written)

    def assert_shown(self, what, written):
        screen = pyte.Screen(COLUMNS, 4_000)
        screen.title = screen.icon_name = "as it was"
        told = Told(screen)
        pyte.ByteStream(told).feed(written)
        self.assertLessEqual(told.told, PLAIN, what)
        self.assertEqual((screen.title, screen.icon_name), ("as it was", "as it was"), what)
        self.assertNotIn(b"\x1b]", written, what)
        lines = written.decode().split("\r\n")
        if len(lines) < screen.lines:
            # The cursor is where so many lines of text put it, each as wide as its characters.
            self.assertEqual((screen.cursor.x, screen.cursor.y), (0, len(lines) - 1), what)
            for y, line in enumerate(lines):
                # A piece behind a colour begins with what says which; what has no width joins what it stands on.
                first, *others = line.split("\x1b[")
                text = first + "".join(piece.split("m", 1)[1] for piece in others)
                if all(wcwidth.wcwidth(c) > 0 for c in text):
                    cells = screen.buffer[y]
                    shown = "".join(cells[x].data for x in range(max(cells, default=-1) + 1))
                    self.assertEqual(shown.rstrip(), text.rstrip(), what)

    def test_nothing_is_obeyed(self):
        commands = [["audit"], ["session", "ls", "auto"], ["chat", "inbox", "auto"], ["chat", "history", "auto"]]
        shown = [[*command, "-o", shape] for command in commands for shape in ("table", "wide", "json", "yaml")]
        shown += [["chat", verb, listener] for listener in self.listeners for verb in ("inbox", "history")]
        for args in shown:
            with self.subTest(" ".join(args)):
                self.assert_shown(args, self.terminal(*args))

    def test_a_row_of_a_table_is_a_row_of_a_narrow_terminal(self):
        # The columns before the last fill less than that.
        for args in (["chat", "history", "auto"], ["chat", "inbox", "auto"]):
            written = self.terminal(*args, columns=130)
            for line in written.split(b"\r\n"):
                screen = pyte.Screen(130, 5)
                pyte.ByteStream(screen).feed(line)
                self.assertEqual(screen.cursor.y, 0, line.decode())

    def test_the_log_is_text(self):
        written = self.service.stderr().encode().replace(b"\n", b"\r\n")
        self.assert_shown("the log", written)


if __name__ == "__main__":
    unittest.main()
