"""The framed shell to the byte: frames, framings, and output of every shape."""
import json
import os
import random
import struct
import unittest
import uuid

from harness import SOAK, eventually, prefixed, receive, receive_all, unread_by_peer
from shell_case import KIB, Shell, line, read_frame


class Frames(Shell):
    def test_shape(self):
        header, body = self.run_once("raw", b"echo out; echo err >&2; exit 7")
        self.assertEqual(body, b"out\nerr\n")
        self.assertEqual(header["filename"], "cls.avi")
        self.assertEqual((header["stdout_len"], header["stderr_len"]), (4, 4))
        self.assertEqual((header["exit_code"], header.get("signal")), (7, None))
        self.assertEqual((header["truncated"], header["timed_out"]), (False, False))
        self.assertGreaterEqual(header["duration_ms"], 0)
        self.assertRegex(header["trace_id"], "^[0-9a-f]{32}$")
        self.assertNotIn("error", header)

    def test_killed_by_a_signal(self):
        header, body = self.run_once("raw", b"printf before; kill -9 $$")
        self.assertEqual((header["exit_code"], body), (None, b"before"))
        self.assertIn(header["signal"], (9, "9", "KILL", "SIGKILL"))

    def test_one_line_ending_is_dropped(self):
        for ending in (b"", b"\n", b"\r\n"):
            self.assertEqual(self.run_once("raw", b"echo hello" + ending)[1], b"hello\n")

    def test_an_answer_leaves_in_one_flow(self):
        with self.visit("raw") as connection:
            for _ in range(200):
                connection.sendall(b"echo hello; echo world >&2")
                whole = connection.recv(64 * KIB)
                (size,) = struct.unpack_from("<i", whole)
                self.assertEqual(whole[4 + size :], b"hello\nworld\n")

    def test_a_long_answer_brings_its_header_whole(self):
        with self.visit("raw") as connection:
            for _ in range(20):
                connection.sendall(b"head -c 3000000 /dev/zero")
                (size,) = struct.unpack("<i", receive(connection, 4))
                header = json.loads(connection.recv(size))
                self.assertEqual(receive(connection, header["len"]).count(0), 3_000_000)

    def test_the_header_stays_short_whatever_it_reports(self):
        for listener in ("programs", "named"):
            with self.visit(listener) as connection:
                for word in (b"x" * 1500, "ß".encode() * 700, "\x01".encode() * 1000, b'"' * 1200):
                    header, _ = self.assert_refused(connection, word)
                    self.assertIn(header["filename"], ("cls.avi", '"' * 255))

    def test_output_encoding(self):
        file = self.file("mixed", "中文😀\n".encode())
        header, body = self.run_once("gbk", b"cat %s; cat %s >&2" % (bytes(file), bytes(file)))
        self.assertEqual(body, "中文?\n".encode("gbk") * 2)
        self.assertEqual((header["stdout_len"], header["stderr_len"]), (6, 6))
        file = self.file("binary", b"\xff\xfe\x00\x80")
        self.assertEqual(self.run_once("gbk", b"cat %s" % bytes(file))[1], b"\xff\xfe\x00\x80")


class Framings(Shell):
    FRAMINGS = (("line", line), ("length", prefixed))

    def test_two_messages_in_one_segment(self):
        for listener, framed in self.FRAMINGS:
            with self.subTest(listener), self.visit(listener) as connection:
                connection.sendall(framed(b"sleep 0.1; echo one") + framed(b"echo two"))
                self.assertEqual([read_frame(connection)[1] for _ in range(2)], [b"one\n", b"two\n"])

    def test_a_message_cut_at_every_byte(self):
        text = b"a" * (KIB - len("echo "))
        for listener, framed in self.FRAMINGS:
            message = framed(b"echo " + text)
            with self.subTest(listener), self.visit(listener) as connection:
                for cut in range(1, len(message)):
                    connection.sendall(message[:cut])
                    eventually(lambda: unread_by_peer(connection) == 0, f"the first {cut} bytes were read")
                    connection.sendall(message[cut:])
                    header, body = read_frame(connection)
                    self.assertEqual((header["exit_code"], body), (0, text + b"\n"), cut)

    def test_two_messages_in_two_segments_cut_at_every_byte(self):
        for listener, framed in self.FRAMINGS:
            first, both = framed(b"echo one"), framed(b"echo one") + framed(b"echo two")
            with self.subTest(listener), self.visit(listener) as connection:
                for cut in range(len(first), len(both)):
                    connection.sendall(both[:cut])
                    self.assertEqual(read_frame(connection)[1], b"one\n", cut)
                    connection.sendall(both[cut:])
                    self.assertEqual(read_frame(connection)[1], b"two\n", cut)

    def test_a_line_may_end_in_crlf(self):
        with self.visit("line") as connection:
            connection.sendall(b"echo one\r\necho two\n")
            self.assertEqual([read_frame(connection)[1] for _ in range(2)], [b"one\n", b"two\n"])

    def test_quiet_gathers_what_was_sent_in_pieces(self):
        with self.visit("quiet") as connection:
            connection.sendall(b"echo o")
            eventually(lambda: unread_by_peer(connection) == 0, "the first piece was read")
            connection.sendall(b"ne")
            self.assertEqual(read_frame(connection)[1], b"one\n")

    def assert_error_and_close(self, listener, sent, code):
        with self.visit(listener) as connection:
            me = connection.getsockname()
            connection.sendall(sent)
            header, body = read_frame(connection)
            self.assertEqual(header["error"]["code"], code)
            self.assertTrue(body.strip())
            self.assertEqual(receive_all(connection), b"")
            self.assertEqual(self.service.close_reason(listener, me), f"CLOSE_REASON_{code.upper()}")

    def test_lengths_that_lie(self):
        for size in (-1, -(2**31)):
            self.assert_error_and_close("length", struct.pack("<i", size), "bad_frame")
        for size in (2 * KIB + 1, 2**31 - 1):
            self.assert_error_and_close("length", struct.pack("<i", size), "message_too_large")

    def test_a_message_over_the_limit(self):
        whole = b"echo " + b"a" * (2 * KIB - 5)
        self.assertEqual(self.run_once("length", prefixed(whole))[1], whole[5:] + b"\n")
        self.assertEqual(self.run_once("line", line(whole))[1], whole[5:] + b"\n")
        self.assert_error_and_close("line", line(whole + b"a"), "message_too_large")

    def test_the_error_reaches_a_peer_that_is_still_sending(self):
        more = b"b" * 60 * KIB
        self.assert_error_and_close("line", more, "message_too_large")
        self.assert_error_and_close("length", struct.pack("<i", -1) + more, "bad_frame")


class Output(Shell):
    def test_a_thousand_random_outputs(self):
        dice = random.Random(20)
        pools = [os.urandom(64 * KIB) for _ in range(8)]
        files = [bytes(self.file(f"pool-{i}", pool)) for i, pool in enumerate(pools)]
        with self.visit("raw") as connection:
            for _ in range(10_000 if SOAK else 1_000):
                which, out, err = dice.randrange(8), dice.randint(0, 64 * KIB), dice.randint(0, 64 * KIB)
                file, pool = files[which], pools[which]
                err *= dice.randrange(2)
                connection.sendall(b"tail -c %d %s; tail -c %d %s >&2" % (out, file, err, file))
                header, body = read_frame(connection)
                self.assertEqual((header["stdout_len"], header["stderr_len"]), (out, err))
                self.assertTrue(body == pool[64 * KIB - out :] + pool[64 * KIB - err :], "bytes differ")

    def test_fifty_megabytes(self):
        content = os.urandom(50_000_000)
        file = self.file("large", content)
        header, body = self.run_once("raw", b"cat %s" % bytes(file))
        file.unlink()
        self.assertEqual((header["len"], header["truncated"]), (50_000_000, False))
        self.assertTrue(body == content, "bytes differ")

    def test_both_streams_at_once(self):
        out, err = os.urandom(64 * KIB), os.urandom(64 * KIB)
        files = bytes(self.file("out", out)), bytes(self.file("err", err))
        header, body = self.run_once("raw", b"for i in $(seq 128); do cat %s; cat %s >&2; done" % files)
        self.assertEqual((header["stdout_len"], header["stderr_len"]), (8 << 20, 8 << 20))
        self.assertTrue(body == out * 128 + err * 128, "bytes differ")

    def test_truncated(self):
        marker = uuid.uuid4().hex
        with self.visit("small") as connection:
            connection.sendall(f"yes {marker}".encode())
            header, body = read_frame(connection)
            self.assertEqual((header["truncated"], header["len"]), (True, 64 * KIB))
            said = marker.encode() + b"\n"
            self.assertTrue((said * (64 * KIB // len(said) + 1)).startswith(body), "bytes differ")
            self.assert_gone(marker)
            self.assert_alive(connection)

    def test_exactly_the_limit_is_not_truncated(self):
        header, _ = self.run_once("small", b"head -c 65536 /dev/zero")
        self.assertEqual((header["truncated"], header["len"], header["exit_code"]), (False, 64 * KIB, 0))


if __name__ == "__main__":
    unittest.main()
