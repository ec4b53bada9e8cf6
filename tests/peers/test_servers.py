"""Our `switchboard connect` against strangers' servers: the plain ones, awkward ones, and ones that mean harm."""
import json
import os
import socket
import struct
import tempfile
import unittest

from harness import PATIENCE, binary, peculiar_server, receive_all, running_server, switchboard

ACK = "received data!!"


def visit(protocol, port, lines, *flags, quit_by="q\n"):
    """One piped visit; returns exit code, stdout as bytes, stderr as text."""
    stdin = "".join(line + "\n" for line in lines) + quit_by
    done = switchboard("connect", protocol, f"127.0.0.1:{port}", *flags, stdin=stdin.encode())
    return done.returncode, done.stdout, done.stderr.decode()


def frame(body, **keys):
    header = json.dumps({**keys, "filename": "cls.avi", "len": len(body)}).encode()
    return struct.pack("<i", len(header)) + header + body


def answering(*pieces):
    """A server that takes one message, sends the pieces, each by itself, and waits for the client to leave."""

    def behave(connection):
        connection.recv(1024)
        for piece in pieces:
            connection.send(piece)
        receive_all(connection)

    return behave


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        binary()

    def visits(self, expected, protocol, port, lines, *flags, ends=0, **how):
        code, stdout, stderr = visit(protocol, port, lines, *flags, **how)
        self.assertEqual((code, stdout), (ends, expected), stderr)
        return stderr


class TutorialServers(Case):
    def test_ack(self):
        with running_server("ack_server.py") as port:
            self.visits(f"{ACK}\n{ACK}\n".encode(), "ack", port, ["hello", "again"])

    def test_end_of_input_leaves_as_q_does(self):
        with running_server("ack_server.py") as port:
            self.visits(f"{ACK}\n".encode(), "ack", port, ["hello"], quit_by="")

    def test_nothing_after_q_is_sent(self):
        with running_server("ack_server.py") as port:
            self.visits(f"{ACK}\n".encode(), "ack", port, ["hello"], quit_by="q\nmore\n")

    def test_shell(self):
        with running_server("shell_server.py") as port:
            self.visits(b"hello\noops\n", "shell", port, ["echo hello", "echo oops >&2", "true"])

    def test_shell_output_passes_to_the_byte(self):
        content = os.urandom(300_000)
        with tempfile.NamedTemporaryFile() as file, running_server("shell_server.py") as port:
            file.write(content)
            file.flush()
            self.visits(content, "shell", port, [f"cat {file.name}"])

    def test_uppercase(self):
        with running_server("uppercase_server.py") as port:
            self.visits("STRASSE\nABC\n".encode(), "uppercase", port, ["straße", "abc"])

    def test_chat(self):
        with running_server("chat_server.py") as port:
            self.visits("you said grüß dich\n".encode(), "chat", port, ["grüß dich"])
        with running_server("chat_server.py", "we are closed") as port:
            self.visits(b"we are closed\nwe are closed\n", "chat", port, ["hello", "hello?"])

    def test_chat_over_udp(self):
        with running_server("qq_server.py") as port:
            self.visits("you said grüß dich\n".encode(), "chat", port, ["grüß dich"], "--udp")


class AwkwardServers(Case):
    def test_a_frame_in_crumbs(self):
        whole = frame(b"hello\n")
        with peculiar_server(answering(*(whole[i : i + 1] for i in range(len(whole))))) as port:
            self.visits(b"hello\n", "shell", port, ["anything"])

    def test_more_keys_in_any_order(self):
        with peculiar_server(answering(frame(b"hello\n", version=2, extra={"deep": [1, None]}))) as port:
            self.visits(b"hello\n", "shell", port, ["anything"])

    def test_no_filename(self):
        with peculiar_server(answering(struct.pack("<i", 9), b'{"len":3}', b"hey")) as port:
            self.visits(b"hey", "shell", port, ["anything"])

    def test_an_error_in_the_header_is_shown_and_is_a_failure(self):
        error = {"code": "not_permitted", "message": "we do not run that here"}
        with peculiar_server(answering(frame(b"", error=error))) as port:
            self.assertIn(error["message"], self.visits(b"", "shell", port, ["anything"], ends=1))

    def test_framings(self):
        with peculiar_server(answering(b"yes\nno", b"\n")) as port:
            self.visits(b"yes\nno\n", "chat", port, ["one", "two"], "--framing", "line")
        with peculiar_server(answering(b"\3\0\0", b"\0ye", b"s")) as port:
            self.visits(b"yes\n", "chat", port, ["one"], "--framing", "length")

    def test_a_server_that_closes_early(self):
        for name, behave in {
            "at once": lambda connection: None,
            "after the question": lambda connection: connection.recv(1024),
            "within the length": lambda connection: (connection.recv(1024), connection.send(b"\5\0")),
            "within the body": lambda connection: (connection.recv(1024), connection.send(frame(b"hello")[:-2])),
        }.items():
            with self.subTest(name), peculiar_server(behave) as port:
                code, _, stderr = visit("shell", port, ["anything", "more"])
                self.assertEqual(code, 1)
                self.assertTrue(stderr.strip())

    def test_lengths_that_lie(self):
        for size in (-1, 0, 2**31 - 1):
            with self.subTest(size), peculiar_server(answering(struct.pack("<i", size), b"{}")) as port:
                self.assertEqual(visit("shell", port, ["anything"])[0], 1)
        for body in (b'{"filename": "cls.avi", "len": -5}', b'{"filename": "cls.avi"}', b'{"len":3', b"[]", b"\xff"):
            with self.subTest(body), peculiar_server(answering(struct.pack("<i", len(body)), body)) as port:
                self.assertEqual(visit("shell", port, ["anything"])[0], 1)

    def test_a_server_that_never_answers_datagrams(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.settimeout(PATIENCE)
            silent.bind(("127.0.0.1", 0))
            _, stdout, stderr = visit("uppercase", silent.getsockname()[1], ["one", "two"], "--timeout", "200ms")
            self.assertEqual([silent.recv(1024), silent.recv(1024)], [b"one", b"two"])
        self.assertEqual(stdout, b"")
        self.assertIn("no answer", stderr)

    def test_nobody_there(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        code, _, stderr = visit("ack", port, ["hello"])
        self.assertEqual(code, 5, stderr)


if __name__ == "__main__":
    unittest.main()
