"""What the framed shell runs, what it never runs, and all that ends when a command ends."""
import contextlib
import socket
import time
import unittest

from harness import Service, eventually, prefixed, processes, receive_all, reset
from shell_case import Shell, line, marked_sleep, read_frame


class Commands(Shell):
    def test_what_cannot_run_is_answered_and_survived(self):
        for listener, framed in (("raw", bytes), ("line", line), ("length", prefixed)):
            with self.subTest(listener), self.visit(listener) as connection:
                for command in (b"\r\n" if listener == "raw" else b"", b"echo a\0b", b"echo \xff\xfe", b"echo \xc3"):
                    self.assert_refused(connection, framed(command))
                    self.assert_alive(connection, framed(b"echo alive"))

    def test_programs_run_without_a_shell(self):
        with self.visit("programs") as connection:
            for command, answer in (
                (b"echo $HOME `id` $(id) * ; id", b"$HOME `id` $(id) * ; id\n"),
                (b"echo 'a  b' \"c  d\" e\\ f", b"a  b c  d e f\n"),
                (b"echo > /dev/full | cat", b"> /dev/full | cat\n"),
            ):
                connection.sendall(command)
                self.assertEqual(read_frame(connection)[1], answer)

    def test_programs_refuse_the_rest(self):
        evil = self.file("echo", b"#!/bin/sh\nexec /bin/echo EVIL\n")
        with self.visit("programs") as connection:
            for command in (
                b"id", b"sh -c 'echo EVIL'", bytes(evil) + b" hello", b"../../bin/echo EVIL", b"echo 'unclosed", b"''",
            ):
                with self.subTest(command):
                    _, body = self.assert_refused(connection, command)
                    self.assertFalse(body.startswith((b"EVIL", b"uid=")), body)
            self.assert_alive(connection)

    def test_timed_out(self):
        marker, command = marked_sleep()
        with self.visit("brief") as connection:
            connection.sendall(f"echo partial; {command} & {command}".encode())
            header, body = read_frame(connection)
            self.assertTrue(header["timed_out"] and header["error"]["code"] and header["error"]["message"], header)
            self.assertIsNone(header["exit_code"])
            first, *reason = body.decode().splitlines()
            self.assertEqual((first, len(reason)), ("partial", 1), body)
            self.assert_gone(marker)
            self.assert_alive(connection)

    def test_a_background_child_does_not_hold_the_answer(self):
        marker, command = marked_sleep()
        with self.visit("raw") as connection:
            started = time.monotonic()
            connection.sendall(f"echo hello; {command} &".encode())
            self.assertEqual(read_frame(connection)[1], b"hello\n")
            self.assertLess(time.monotonic() - started, 5)
            self.assert_gone(marker)
            self.assert_alive(connection)

    def test_what_a_background_child_says_within_the_linger_counts(self):
        self.assertEqual(self.run_once("patient", b"(sleep 0.1; echo late) & echo now")[1], b"now\nlate\n")

    def test_a_peer_that_ended_its_side_is_still_answered(self):
        for listener, framed, count in (("raw", bytes, 1), ("line", line, 2), ("length", prefixed, 2)):
            with self.subTest(listener), self.visit(listener) as connection:
                connection.sendall(framed(b"sleep 0.2; echo done") * count)
                connection.shutdown(socket.SHUT_WR)
                self.assertEqual([read_frame(connection)[1] for _ in range(count)], [b"done\n"] * count)
                self.assertEqual(receive_all(connection), b"")

    def test_a_reset_ends_the_command_and_all_it_started(self):
        marker, command = marked_sleep()
        connection = self.service.connect("raw")
        connection.sendall(f"({command} & {command}) & {command}".encode())
        eventually(lambda: len(processes(marker)) >= 3, "the commands run")
        me = connection.getsockname()
        reset(connection)
        self.assert_gone(marker)
        self.assertEqual(self.service.close_reason("raw", me), "CLOSE_REASON_CLIENT_RESET")

    def test_the_end_of_the_service_ends_commands(self):
        marker, command = marked_sleep()
        with Service(grace="200ms", shell={"protocol": "shell", "policy": "any"}) as service:
            with contextlib.closing(service.connect("shell")) as connection:
                connection.sendall(f"{command} & {command}".encode())
                eventually(lambda: processes(marker), "the commands run")
                service.stop()
        self.assert_gone(marker)


class Browsers(Shell):
    def trace(self, name):
        """A file that a command would leave behind, if it ran."""
        return self.folder / "open" / name

    def setUp(self):
        (self.folder / "open").mkdir(exist_ok=True)
        (self.folder / "open").chmod(0o777)

    def test_an_http_request_is_never_run(self):
        self.run_once("raw", b"touch %s" % bytes(self.trace("control")))
        self.assertTrue(self.trace("control").exists(), "the test would see a command that ran")
        for listener in ("raw", "line"):
            for verb in ("GET", "POST", "OPTIONS"):
                with self.subTest(listener=listener, verb=verb), self.visit(listener) as connection:
                    me, target = connection.getsockname(), self.trace(f"{listener}-{verb}")
                    connection.sendall(
                        f"{verb} /;touch${{IFS}}{target};: HTTP/1.1\r\nHost: localhost\r\n\r\ntouch {target}\n".encode()
                    )
                    with contextlib.suppress(ConnectionResetError):
                        receive_all(connection)
                    self.assertEqual(self.service.close_reason(listener, me), "CLOSE_REASON_BAD_FRAME")
                    self.assertFalse(target.exists())


if __name__ == "__main__":
    unittest.main()
