"""`switchboard top` in a real terminal, against the running service; and what scripts read of it."""
import contextlib
import json
import select
import socket
import tempfile
import threading
import unittest

from harness import PATIENCE, Service, binary, connect, eventually, receive, switchboard
from screen import Terminal

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[6n\x9b31m\x1bc\u202ereversed"
LINES = {"framing": "line", "reply": "yes"}


class Traffic:
    """A peer that says something as soon as it has been answered. Use with `with`."""

    def __init__(self, service, listener):
        self.client = service.connect(listener)
        self.going = True
        self.thread = threading.Thread(target=self.talk)

    def talk(self):
        with contextlib.suppress(OSError):
            while self.going:
                self.client.sendall(b"hello\n")
                receive(self.client, 4)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        self.thread.join(PATIENCE)
        self.client.close()


def top(service, *flags, **keys):
    args = ["--endpoint", f"http://127.0.0.1:{service.port('grpc')}", "--interval", "500ms"]
    return Terminal("top", *args, *flags, **keys)


def line(terminal, begins):
    """The row of a name, as words."""
    rows = [row.split() for row in terminal.text().split("\n")]
    return next((row for row in rows if row and row[0] == begins), [])


class Top(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        chat = {"protocol": "chat", "framing": "line", "unattended_after": "10m"}
        cls.service = Service(
            ack=LINES, busy=LINES, crowd=LINES | {"limits": {"max_sessions_per_source": 1000}}, door=LINES,
            hostile=chat, gone=LINES, udp={"protocol": "uppercase"}, coming=LINES,
        ).during(cls)

    def ask(self, *args):
        return self.service.ask(*args)

    def state(self, listener):
        return self.ask("listener", "get", listener)["state"]

    def test_listeners_are_seen_and_rates_move_with_the_traffic(self):
        with top(self.service, "--filter", "busy") as view:
            view.shows("1 of 8", " NAME ", "switchboard local 0.1.0", "every 500ms")
            view.until(lambda: line(view, "busy")[1:4] == ["active", "0", "0"], "it is at rest")
            with Traffic(self.service, "busy"):
                busy = lambda: line(view, "busy")[2:3] == ["1"] and line(view, "busy")[3] not in ("0", "0.1")
                view.until(busy, "a session, and messages")
                received = lambda: next(l for l in view.text().split("\n") if l.startswith(" in ")).split()[1]
                self.assertNotEqual(received(), "0")
            view.until(lambda: line(view, "busy")[2:4] == ["0", "0"], "it is at rest again")
            view.press("q")
            self.assertEqual(view.end(), 0)
            self.assertTrue(view.is_given_back(), bytes(view.raw[-200:]))

    def test_rows_are_sorted_and_filtered(self):
        with contextlib.ExitStack() as stack, top(self.service) as view:
            for _ in range(3):
                stack.enter_context(self.service.connect("ack"))
            view.shows("by NAME", " ack ")
            order = lambda: [(l.split() or [""])[0] for l in view.text().split("\n")[5:13]]
            view.until(lambda: order()[:2] == ["ack", "busy"], "in order of name")
            view.press("S")
            view.shows("by NAME reversed")
            self.assertEqual(order()[0], "udp")
            view.press("ss")
            view.shows("by SESSIONS")
            view.until(lambda: order()[0] == "ack", "the most sessions first")
            view.press("/door")
            view.shows("/door_", "1 of 8")
            view.press("\r")
            view.until(lambda: order()[0] == "door", "the only one")
            view.press("\x1b")
            view.until(lambda: order()[0] == "ack" and "door_" not in view.text(), "all of them")

    def test_few_of_many_sessions_are_read_and_the_service_sorts_them(self):
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(self.service.connect("crowd")) for _ in range(300)]
            peers[290].sendall(b"x" * 5000 + b"\n")
            with top(self.service, "--sort", "in", columns=120) as view:
                view.shows(" crowd ")
                view.press("2/crowd\r")
                view.shows("200 of 300 · by IN · /crowd")
                address = "%s:%d" % peers[290].getsockname()
                view.until(lambda: address in view.text().split("\n")[5], "who said most is the first")
                view.press("\r")
                view.shows("receivedBytes:", address)
                view.press("xG")
                # The last of those that were read, in the last row.
                last = self.ask("session", "ls", "crowd", "--order-by", "received_bytes desc", "--limit", "200")["sessions"][-1]
                view.until(lambda: last["peer"] in view.text().split("\n")[-2], "the last one")

    def test_nothing_is_done_before_it_is_confirmed_and_then_it_is(self):
        command = f"switchboard listener pause door --endpoint http://127.0.0.1:{self.service.port('grpc')}"
        with top(self.service, "--filter", "door") as view:
            view.shows("1 of 8")
            view.press("P")
            view.shows("pause listener door?", command, "its 0 sessions", "y does it")
            view.press("n")
            view.shows("nothing was done")
            self.assertEqual(self.state("door"), "STATE_ACTIVE")
            view.press("P")
            view.shows("pause listener door?")
            view.press("y")
            view.shows("door is paused · switchboard listener pause door")
            self.assertEqual(self.state("door"), "STATE_PAUSED")
            view.until(lambda: line(view, "door")[1:2] == ["paused"], "it is seen")
            # The command that was shown says the same, and what is paused can be resumed.
            self.assertEqual(switchboard(*command.split()[1:]).returncode, 0)
            view.press("P")
            view.shows("resume listener door?")
            view.press("y")
            view.shows("door is resumed")
            self.assertEqual(self.state("door"), "STATE_ACTIVE")
            view.press("D")
            view.shows("drain listener door?")
            view.press("y")
            view.until(lambda: line(view, "door")[1:2] == ["stopped"], "it was drained")
            view.press("P")
            view.shows("start listener door?", "--etag")
            view.press("y")
            view.shows("door is started")
            self.assertEqual(self.state("door"), "STATE_ACTIVE")
        events = self.ask("audit", "--limit", "50")["auditEvents"]
        self.assertIn("from switchboard top", [event.get("reason") for event in events])

    def test_a_refusal_says_why(self):
        self.service.cli("listener", "stop", "gone")
        with top(self.service, "--filter", "gone") as view:
            view.until(lambda: line(view, "gone")[1:2] == ["stopped"], "it is stopped")
            view.press("P")
            view.shows("start listener gone?")
            # Its definition changes meanwhile.
            self.assertEqual(self.service.cli("listener", "update", "gone", "--set", "labels.a=b").returncode, 0)
            view.press("y")
            view.shows("(ETAG_MISMATCH)", "switchboard listener start gone")
            self.assertEqual(self.state("gone"), "STATE_STOPPED")

    def test_a_session_is_closed(self):
        with self.service.connect("coming") as peer, top(self.service, columns=130) as view:
            view.shows(" coming ")
            view.press("2/coming\r")
            view.shows("127.0.0.1:%d" % peer.getsockname()[1])
            view.press("K")
            view.shows("close session local-", "switchboard session close listeners/coming/sessions/local-")
            view.press("y")
            view.shows("is closed ·")
            self.assertEqual(peer.recv(1), b"")
            self.assertEqual(self.service.close_reason("coming", peer.getsockname()), "CLOSE_REASON_KICKED")

    def test_events_are_told_as_they_happen(self):
        with top(self.service, columns=120) as view:
            view.shows(" coming ")
            view.press("4/coming\r")
            view.shows("nothing contains that text")
            # Whether sessions are followed yet is seen by one of them.
            def comes():
                with self.service.connect("coming"):
                    pass
                view.hear(0.1)
                return "created" in view.text() and "deleted" in view.text()

            eventually(comes, "a session that came and went")
            self.service.cli("listener", "pause", "coming")
            view.shows("updated  listeners/coming  ", "paused")
            self.service.cli("listener", "resume", "coming")

    def test_who_only_looks_can_do_nothing(self):
        with top(self.service, "--read-only") as view:
            view.shows(" ack ")
            view.press("Py")
            view.shows("only looks on")
            view.press("?")
            view.shows("any key closes this")
            self.assertNotIn("drain", view.text())
        self.assertEqual(self.state("ack"), "STATE_ACTIVE")

    def test_hostile_text_moves_nothing_and_is_seen_at_the_desk(self):
        with self.service.connect("hostile") as peer, top(self.service, columns=140) as view:
            peer.sendall((HOSTILE + "你好\n").encode())
            self.service.waiting("hostile")
            view.shows(" hostile ")
            view.press("3")
            view.shows("\\u{1b}]0;owned", "waiting 1 (", "你好")
            view.press("\r")
            view.shows("unansweredMessages: 1")
            view.press("x")
            self.service.cli("listener", "update", "hostile", "--set", f"display_name={HOSTILE}")
            view.press("1/hostile\r")
            view.shows("1 of 8")
            view.press("\r")
            view.shows("displayName:", "owned")
            view.press("q")
            view.press("q")
            self.assertEqual(view.end(), 0)
            self.assertEqual((view.screen.title, view.strange()), ("", []))

    def test_every_size_is_filled_and_no_more(self):
        with top(self.service) as view:
            view.shows("? keys · q quit")
            rows = lambda: view.text().split("\n")
            for columns, height in [(132, 43), (40, 12), (20, 5)]:
                view.resize(columns, height)
                view.until(lambda: rows()[0].startswith(" switch") and rows()[-1].startswith("Enter deta"), "all of it")
                view.until(lambda: any(row.startswith(" ack") for row in rows()), "the listeners")
            view.resize(5, 2)
            view.until(lambda: rows() == [" NAME", " ack"], "what there is room for")
            view.resize(80, 24)
            view.shows("? keys · q quit", " ack ", " switchboard local")
            before = len(view.raw)
            view.press("\x0c")
            view.until(lambda: b" switchboard local" in view.raw[before:], "it is painted anew")

    def test_it_waits_in_the_background_with_its_question_still_open(self):
        with top(self.service) as view:
            view.shows("? keys · q quit")
            view.press("?")
            view.shows("Ctrl-Z")
            before = view.text()
            view.press("\x1a")
            # An orphan is not stopped by this signal; a shell's child is. Either way it is there again.
            eventually(lambda: view.hear(0.1) and view.raw.count(b"\x1b[?1049h") == 2, "the screen is taken again")
            view.until(lambda: view.text().split("\n")[3:] == before.split("\n")[3:], "what was open is still open")

    def test_without_colours_all_is_said_in_words(self):
        with top(self.service, NO_COLOR="1") as view:
            view.shows(" ack ", "active")
            view.press("P")
            view.shows("y does it")
            view.press("\x03")
            self.assertEqual(view.end(), 130)
            self.assertTrue(view.is_given_back())
            self.assertEqual([c for c in (b"[31m", b"[32m", b"[33m", b"[38;5") if c in view.raw], [])
        with top(self.service) as view:
            view.shows("active")
            view.until(lambda: b"[38;5" in view.raw or b"[32m" in view.raw, "colours where they are wanted")

    def test_it_outlives_the_service(self):
        with tempfile.TemporaryDirectory() as folder:
            def serving(**listeners):
                service = Service(**listeners)
                service.config["grpc"]["socket"] = f"{folder}/control"
                return service

            with contextlib.ExitStack() as stack:
                with serving(before=LINES):
                    view = stack.enter_context(Terminal("top", "--endpoint", f"unix:{folder}/control", "--interval", "500ms"))
                    view.shows(" before ", "every 500ms")
                view.shows("LOST,", " old, again in", " before ")
                # Keys are heard all the same.
                view.press("?")
                view.shows("any key closes this")
                view.press("x")
                with serving(after=LINES):
                    view.shows(" after ", "every 500ms")
                    self.assertNotIn("before", view.text())
                view.press("q")
                self.assertEqual(view.end(), 0)

    def test_what_is_frozen_stays(self):
        with top(self.service, "--filter", "udp") as view:
            view.until(lambda: line(view, "udp")[3:4] == ["0"], "it is at rest")
            view.press("p")
            view.shows("FROZEN, ")
            port = self.service.port("udp")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.connect(("127.0.0.1", port))
                view.shows("FROZEN, 1s old")
                for _ in range(200):
                    peer.send(b"x")
                self.assertTrue(select.select([peer], [], [], PATIENCE)[0])
                view.shows("FROZEN, 2s old")
                self.assertEqual(line(view, "udp")[3:4], ["0"])
                view.press("p")

                def moving():
                    peer.send(b"x")
                    return line(view, "udp")[3:4] not in (["0"], [])

                view.until(moving, "and goes on")


class Once(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = Service(ack=LINES, other=LINES, chat={"protocol": "chat", "framing": "line"}).during(cls)

    def once(self, *flags):
        done = self.service.cli("top", "--once", "--interval", "500ms", *flags)
        self.assertEqual((done.returncode, done.stderr), (0, b""), flags)
        return done.stdout.decode()

    def test_a_script_reads_tables(self):
        with Traffic(self.service, "ack"), self.service.connect("chat") as peer:
            peer.sendall((HOSTILE + "\n").encode())
            self.service.waiting("chat")
            said = self.once("--sort", "sessions")
        self.assertNotIn("\x1b", said)
        for text in ("node        local", "listeners: 3", "NAME ", "sessions: 2", "desk: 1", "\\u{1b}]0;owned"):
            self.assertIn(text, said)
        row = next(line.split() for line in said.split("\n") if line.startswith("ack "))
        self.assertEqual(row[:3], ["ack", "active", "1"])
        self.assertGreater(float(row[3].replace(",", "").rstrip("k")), 0)

    def test_a_script_reads_a_document(self):
        with Traffic(self.service, "ack"):
            said = json.loads(self.once("-o", "json", "--filter", "ack", "--limit", "1"))
        self.assertEqual([one["listener"]["name"] for one in said["listeners"]], ["listeners/ack"])
        rates = said["listeners"][0]["rates"]
        self.assertGreater(rates["receivedMessages"], 0)
        self.assertAlmostEqual(rates["receivedBytes"], 6 * rates["receivedMessages"], delta=rates["receivedBytes"] / 5 + 60)
        self.assertEqual((said["node"], said["server"]["version"]), ("local", "0.1.0"))
        self.assertEqual((len(said["sessions"]), said["figures"]["sessions"]), (1, 1))
        self.assertGreater(said["figures"]["memoryBytes"], 1 << 20)
        self.assertTrue(self.once("-o", "yaml").startswith("endpoint: "))

    def test_what_makes_no_sense_is_said(self):
        for flags, said in [
            ([], "--once"), (["-o", "json"], "--once"), (["--once", "--sort", "colour"], "SESSIONS"),
            (["--once", "--interval", "1ms"], "at least 500ms"), (["--once", "-o", "name"], "--once takes"),
        ]:
            done = self.service.cli("top", *flags)
            self.assertEqual(done.returncode, 2, flags)
            self.assertIn(said, done.stderr.decode(), flags)
        self.assertEqual(switchboard("top", "--once", "--endpoint", "127.0.0.1:1").returncode, 5)
        printed = self.service.cli("top", "--print-grpcurl").stdout.decode()
        self.assertIn("MetricService/StreamMetricSnapshots", printed)


if __name__ == "__main__":
    unittest.main()
