"""The ack listener to the byte, in every framing."""
import contextlib
import socket
import struct
import unittest

from harness import Service, eventually, prefixed, receive, receive_all, reset

ANSWER = b"received data!!"


class Ack(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        tight = {"limits": {"max_message_bytes": 2048}}
        cls.service = Service(
            raw=tight,
            once={"once": True},
            line=tight | {"framing": "line"},
            length=tight | {"framing": "length"},
            thanks={"reply": "thanks\n"},
            crowded={"limits": {"max_sessions": 1}},
        ).during(cls)

    def visit(self, listener):
        return contextlib.closing(self.service.connect(listener))

    def assert_closed_for(self, listener, sent, reason):
        """An error answer, then the end; gives the answer."""
        with self.visit(listener) as connection:
            me = connection.getsockname()
            connection.sendall(sent)
            answer = receive_all(connection)
            self.assertEqual(self.service.close_reason(listener, me), reason)
            return answer

    def test_one_message_one_answer(self):
        with self.visit("raw") as connection:
            for message in (b"hello", b"\0\xff", b"q", b"a" * 2048):
                connection.sendall(message)
                self.assertEqual(receive(connection, 15), ANSWER)
            connection.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(connection), b"")

    def test_nothing_comes_unasked(self):
        with self.visit("raw") as connection:
            connection.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(connection), b"")

    def test_raw_keeps_no_boundaries(self):
        with self.visit("raw") as connection:
            connection.sendall(b"one")
            connection.sendall(b"two")
            connection.shutdown(socket.SHUT_WR)
            self.assertIn(receive_all(connection), (ANSWER, ANSWER * 2))

    def test_a_long_raw_message_is_several(self):
        with self.visit("raw") as connection:
            connection.sendall(b"a" * 5000)
            connection.shutdown(socket.SHUT_WR)
            answers = receive_all(connection)
        self.assertEqual(answers, ANSWER * (len(answers) // 15))
        self.assertGreaterEqual(len(answers) // 15, 3)

    def test_line(self):
        with self.visit("line") as connection:
            connection.sendall(b"one\r\n\ntwo\nthr")
            self.assertEqual(receive(connection, 48), (ANSWER + b"\n") * 3)
            connection.sendall(b"ee\n")
            self.assertEqual(receive(connection, 16), ANSWER + b"\n")

    def test_length(self):
        with self.visit("length") as connection:
            connection.sendall(prefixed(b"one") + prefixed(b"") + prefixed(b"two")[:5])
            self.assertEqual(receive(connection, 38), prefixed(ANSWER) * 2)
            connection.sendall(b"wo")
            self.assertEqual(receive(connection, 19), prefixed(ANSWER))

    def test_once(self):
        with self.visit("once") as connection:
            connection.sendall(b"hello")
            self.assertEqual(receive_all(connection), ANSWER)

    def test_another_reply(self):
        with self.visit("thanks") as connection:
            connection.sendall(b"hello")
            self.assertEqual(receive(connection, 7), b"thanks\n")

    def test_lengths_that_lie(self):
        for size, reason in ((-1, "BAD_FRAME"), (2049, "MESSAGE_TOO_LARGE"), (2**31 - 1, "MESSAGE_TOO_LARGE")):
            answer = self.assert_closed_for("length", struct.pack("<i", size) + b"x" * 60_000, f"CLOSE_REASON_{reason}")
            self.assertEqual(answer, prefixed(answer[4:]))
            self.assertNotIn(answer[4:], (b"", ANSWER))

    def test_a_line_over_the_limit(self):
        answer = self.assert_closed_for("line", b"x" * 60_000 + b"\n", "CLOSE_REASON_MESSAGE_TOO_LARGE")
        self.assertRegex(answer, rb"^[^\n]+\n$")
        self.assertNotEqual(answer, ANSWER + b"\n")

    def test_over_the_limit_is_accepted_counted_and_closed(self):
        before = self.service.dropped("crowded")
        with self.visit("crowded") as first:
            first.sendall(b"hello")
            self.assertEqual(receive(first, 15), ANSWER)
            with self.visit("crowded") as second:
                self.assertEqual(receive_all(second), b"")
            eventually(lambda: self.service.dropped("crowded") == before + 1, "one more peer counted as turned away")
            first.sendall(b"still here")
            self.assertEqual(receive(first, 15), ANSWER)

    def test_a_reset_is_nobody_elses_business(self):
        with self.visit("raw") as other:
            for greeted in (False, True):
                connection = self.service.connect("raw")
                me = connection.getsockname()
                if greeted:
                    connection.sendall(b"hello")
                    receive(connection, 15)
                reset(connection)
                if greeted:
                    self.assertEqual(self.service.close_reason("raw", me), "CLOSE_REASON_CLIENT_RESET")
                other.sendall(b"hello")
                self.assertEqual(receive(other, 15), ANSWER)


if __name__ == "__main__":
    unittest.main()
