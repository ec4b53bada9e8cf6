"""The operator's desk in a real terminal: the kernel's, with an emulator behind it, and tmux's where there is one."""
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from harness import HERE, PATIENCE, Service, binary, environment, eventually, prefixed, receive
from screen import Terminal

ATTACKS = HERE.parent / "it/desk_text/attacks.tsv"
HOSTILE = (
    "\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07\x1b[2J\x1b[6n\x1b[?1049l\x1bP+q\x1b\\\x9b31m\x1bc\x0e\u202ereversed\u2066"
)


class Desk(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        lines = {"protocol": "chat", "framing": "line", "unattended_after": "10m"}
        cls.service = Service(
            chat=lines | {"canned_replies": {"hello": "Hello, how can I help?"}},
            hostile=lines, gbk=lines | {"encoding": "gbk"}, left=lines, small=lines, away=lines, back=lines, flood=lines, quiet=lines, stuck=lines,
            attacked=lines | {"framing": "length"},
        ).during(cls)

    def desk(self, listener, *flags, **keys):
        args = ["--endpoint", f"http://127.0.0.1:{self.service.port('grpc')}"]
        return Terminal("chat", "attach", listener, "--operator", "ann", *flags, *args, **keys)

    def client(self, listener, text):
        client = self.service.connect(listener)
        self.addCleanup(client.close)
        client.sendall(text if isinstance(text, bytes) else (text + "\n").encode())
        return client

    def test_an_operator_claims_answers_and_releases(self):
        with self.desk("chat", NO_COLOR="1") as desk:
            desk.shows("desk chat · ann · 0 waiting", "nobody is here")
            client = self.client("chat", "is anybody there? 你好")
            desk.shows("1 waiting", "is anybody there? 你好")
            self.assertIn(b"\a", desk.raw, "the bell")
            desk.press("c")
            desk.shows("mine", "yours", "\n>")
            desk.press("Yes, 你好")
            desk.shows("> Yes, 你好", "11/1024 B utf-8")
            desk.press("\r")
            self.assertEqual(receive(client, 12), "Yes, 你好\n".encode())
            desk.shows("ann: Yes, 你好", "0 waiting")
            client.sendall(b"more\n")
            desk.shows("peer: more")
            desk.press("/he\t")
            desk.shows("> /hello", "22/1024 B")
            desk.press("\r")
            self.assertEqual(receive(client, 23), b"Hello, how can I help?\n")
            desk.press("\x1b")
            desk.shows("c claim")
            desk.press("x")
            desk.shows("  ok ")
            self.assertEqual(self.service.waiting("chat", 0).get("operator", ""), "")
            desk.press("q")
            self.assertEqual(desk.end(), 0)
            self.assertTrue(desk.is_given_back(), bytes(desk.raw[-200:]))
            colours = [code for code in (b"[31m", b"[32m", b"[33m", b"[38;5") if code in desk.raw]
            self.assertEqual(colours, [])

    def test_hostile_text_moves_nothing(self):
        self.client("hostile", HOSTILE)
        with self.desk("hostile") as desk:
            desk.shows("1 waiting", "\\u{1b}]0;owned", "reversed")
            desk.press("c")
            # Where the operator types is where the cursor is.
            desk.shows_cursor(2, 22)
            self.assertEqual((desk.screen.title, desk.screen.icon_name), ("", ""))
            desk.press("\x03")
            self.assertEqual(desk.end(), 130)
            self.assertEqual(desk.strange(), [])
            self.assertTrue(desk.is_given_back())

    def test_no_known_attack_moves_anything(self):
        attacks = [spelled.encode().decode("unicode_escape").encode("latin-1")
                   for spelled in (line.split("\t")[1] for line in ATTACKS.read_text().splitlines())]
        self.assertGreaterEqual(len(attacks), 200)
        self.client("attacked", b"".join(prefixed(attack) for attack in attacks[:200] if attack))
        with self.desk("attacked", columns=100, rows=30) as desk:
            desk.shows("1 waiting", "200 127.0.0.1")
            desk.press("\r")
            desk.shows_cursor(2, 28)
            for page in range(1, 26):
                desk.press("\x1b[5~")
                desk.shows(f"{10 * page} lines below")
            self.assertEqual((desk.screen.title, desk.screen.icon_name), ("", ""))
            self.assertEqual((desk.screen.cursor.x, desk.screen.cursor.y), (2, 28))
            self.assertEqual(desk.strange(), [])

    def test_answers_are_weighed_and_sent_in_the_encoding_of_the_peer(self):
        client = self.client("gbk", "在吗\n".encode("gbk"))
        with self.desk("gbk") as desk:
            desk.shows("在吗")
            desk.press("\r在的")
            desk.shows("4/1024 B gbk")
            desk.press("🙂")
            desk.shows("cannot write it")
            desk.press("\x7f\r")
            self.assertEqual(receive(client, 5), "在的\n".encode("gbk"))

    def test_it_fits_where_it_is_shown(self):
        self.client("small", "hello")
        with self.desk("small", columns=34, rows=6) as desk:
            desk.shows("WAIT", "wait")
            desk.press("\r")
            desk.shows("peer: hello", "\n>")
            desk.resize(120, 40)
            desk.shows("WAIT", "peer: hello", "desk small · ann")
            desk.resize(5, 2)
            desk.resize(80, 24)
            desk.shows("WAIT", "peer: hello")

    def test_the_terminal_is_given_back_whatever_ends_it(self):
        for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGQUIT, 131)):
            with self.subTest(number), self.desk("left") as desk:
                desk.shows("nobody is here")
                desk.process.send_signal(number)
                self.assertEqual(desk.end(), code)
                self.assertTrue(desk.is_given_back(), bytes(desk.raw[-200:]))

    def test_it_waits_in_the_background_and_comes_back(self):
        with self.desk("away") as desk:
            desk.shows("nobody is here")
            desk.press("\x1a")
            # An orphan is not stopped by this signal; a shell's child is. Either way it is there again.
            eventually(lambda: desk.hear(0.1) and desk.raw.count(b"\x1b[?1049h") == 2, "the screen is taken again")
            self.client("away", "hello")
            desk.shows("peer: hello")

    def test_what_is_typed_outlives_the_service(self):
        with tempfile.TemporaryDirectory() as folder:
            def serving():
                service = Service(chat={"protocol": "chat", "framing": "line"})
                service.config["grpc"]["socket"] = f"{folder}/control"
                return service

            with serving() as service:
                endpoint = f"unix:{folder}/control"
                desk = Terminal("chat", "attach", "chat", "--operator", "ann", "--endpoint", endpoint).__enter__()
                self.addCleanup(desk.__exit__)
                client = service.connect("chat")
                client.sendall(b"hello\n")
                desk.shows("peer: hello")
                desk.press("\rhalf an answer")
                desk.shows("> half an answer")
            desk.shows("LOST, again in", "> half an answer")
            client.close()
            with serving() as service, service.connect("chat") as client:
                desk.shows("gone", "> half an answer")
                client.sendall(b"anew\n")
                desk.shows("1 waiting", "> half an answer")

    def flood(self, listener):
        """A thousand messages of ten clients, as fast as they are taken; the last of each is its own."""
        lines = "".join(f"message {n} of many that scroll by\n" for n in range(99))
        return [self.client(listener, lines + f"last of {peer}") for peer in range(10)]

    def test_a_flood_is_shown_twenty_times_a_second(self):
        with self.desk("flood") as desk:
            desk.shows("nobody is here")
            before, began = len(desk.raw), time.monotonic()
            self.flood("flood")
            desk.shows("10 waiting", "100 127.0.0.1")
            frames = desk.raw.count(b"\x1b[?2026h", before)
            self.assertLessEqual(frames, 20 * (time.monotonic() - began) + 2)

    def test_where_nothing_changes_nothing_is_drawn(self):
        client = self.client("quiet", "hello")
        with self.desk("quiet") as desk:
            desk.shows("peer: hello", "1 waiting")
            desk.press("\rhi\r")
            self.assertEqual(receive(client, 3), b"hi\n")
            desk.shows("ann: hi", "0 waiting")
            while desk.hear(0.2):
                pass
            before = len(desk.raw)
            desk.hear(2.5)
            self.assertEqual(bytes(desk.raw[before:]), b"")

    def test_a_terminal_that_takes_nothing_holds_nothing_up(self):
        with self.desk("stuck", columns=200, rows=60) as desk:
            desk.shows("nobody is here")
            # Nobody reads it from here on, as after Ctrl-S; keys are still heard.
            clients = self.flood("stuck")
            eventually(lambda: len(self.service.ask("chat", "inbox", "stuck")["conversations"]) == 10, "all are here")
            desk.press("c")
            claimed = eventually(
                lambda: [c for c in self.service.ask("chat", "inbox", "stuck")["conversations"] if c.get("operator")],
                "one is claimed",
            )
            desk.press("Yes\r")
            answered = next(c for c in clients if claimed[0]["peer"].endswith(f":{c.getsockname()[1]}"))
            self.assertEqual(receive(answered, 4), b"Yes\n")
            # What had been drawn before is at most a frame and what the kernel holds; then it is as it is now.
            behind = len(desk.raw)
            desk.shows("ann: Yes", "mine")
            self.assertLess(len(desk.raw) - behind, 200_000)
            self.flood("stuck")
            desk.process.send_signal(signal.SIGTERM)
            self.assertEqual(desk.process.wait(PATIENCE), 143)

    def test_a_terminal_without_a_screen_is_told_line_by_line(self):
        with self.desk("left", term="dumb") as desk:
            desk.shows("line by line, as with --plain:", "attached left ann", "synced")
            desk.press("bogus\n")
            desk.shows("error FAILED no command is called bogus")
            desk.press("\x04")
            self.assertEqual(desk.end(), 0)
            self.assertNotIn(b"\x1b", desk.raw)

    @unittest.skipUnless(shutil.which("tmux"), "tmux is not here; the same is tested without it")
    def test_in_tmux(self):
        client = self.client("back", HOSTILE)
        with tempfile.TemporaryDirectory() as folder:
            def tmux(*args):
                command = ["tmux", "-S", f"{folder}/socket", "-f", "/dev/null", *args]
                done = subprocess.run(command, capture_output=True, timeout=PATIENCE, env=environment(), check=True)
                return done.stdout.decode()

            def shows(text):
                eventually(lambda: text in tmux("capture-pane", "-p"), f"{text} in tmux")

            line = f"{binary()} chat attach back --operator ann --endpoint 127.0.0.1:{self.service.port('grpc')}"
            tmux("new-session", "-d", "-x", "80", "-y", "24", "sh")
            try:
                tmux("set-option", "-s", "set-clipboard", "on")
                tmux("set-buffer", "mine")
                tmux("select-pane", "-T", "title")
                tmux("send-keys", line, "Enter")
                shows("1 waiting")
                shows("\\u{1b}]0;owned")
                tmux("send-keys", "c")
                shows("mine")
                tmux("send-keys", "-l", "Yes")
                tmux("send-keys", "Enter")
                self.assertEqual(receive(client, 4), b"Yes\n")
                shows("ann: Yes")
                self.assertEqual(tmux("show-buffer"), "mine")
                self.assertEqual(tmux("display-message", "-p", "#{pane_title}").strip(), "title")
                tmux("send-keys", "C-z")
                eventually(lambda: "Stopped" in tmux("capture-pane", "-p"), "the shell has its job back")
                tmux("send-keys", "fg", "Enter")
                shows("ann: Yes")
                tmux("send-keys", "Escape")
                tmux("send-keys", "x")
                shows("  ok ")
                tmux("send-keys", "q")
                eventually(lambda: "WAIT" not in tmux("capture-pane", "-p"), "the shell has its screen back")
                self.assertEqual(tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}").split(), ["0", "1"])
            finally:
                tmux("kill-server")
