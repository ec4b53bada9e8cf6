"""The chat desk and the room to the byte: who is owed an answer gets one, in order, and nothing else ever comes."""
import contextlib
import socket
import unittest

from harness import UNATTENDED, Service, arrived, datagrams, eventually, prefixed, receive, receive_all


class Chat(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        chat = {"protocol": "chat"}
        cls.service = Service(
            line=chat | {"framing": "line"},
            length=chat | {"framing": "length"},
            raw=chat,
            udp=chat | {"transport": "udp"},
            alone=chat | {"framing": "line", "unattended_after": "300ms"},
            gbk=chat | {"framing": "line", "encoding": "gbk"},
            people=chat | {"framing": "line", "pace": "free"},
            room=chat | {"framing": "line", "pace": "free", "mode": "room"},
        ).during(cls)

    def visit(self, listener):
        return contextlib.closing(self.service.connect(listener))

    def assert_silent(self, connection):
        """Nothing has come so far: a wrong byte may be missed here and met later, a right one never fails."""
        self.assertFalse(arrived(connection))

    def answer(self, conversation, question, text):
        self.service.reply(conversation, text, "--to", self.service.sequence(conversation, question))

    def test_a_later_answer_waits_for_the_earlier_one(self):
        for listener, framed in (("line", lambda text: text + b"\n"), ("length", prefixed)):
            with self.subTest(listener), self.visit(listener) as client:
                client.sendall(framed(b"first") + framed(b"second") + framed(b"third"))
                conversation = self.service.waiting(listener, messages=3)
                self.answer(conversation, "second", "two")
                self.answer(conversation, "third", "three")
                self.assert_silent(client)
                self.answer(conversation, "first", "one")
                expected = framed(b"one") + framed(b"two") + framed(b"three")
                self.assertEqual(receive(client, len(expected)), expected)

    def test_over_udp_too(self):
        with contextlib.closing(datagrams(self.service.port("udp"))) as client:
            client.send(b"first")
            self.service.waiting("udp")
            client.send(b"second")
            conversation = self.service.waiting("udp", messages=2)
            self.answer(conversation, "second", "two")
            self.assert_silent(client)
            self.answer(conversation, "first", "one")
            self.assertEqual([client.recv(1024), client.recv(1024)], [b"one", b"two"])

    def test_without_a_number_the_oldest_is_answered(self):
        with self.visit("line") as client:
            client.sendall(b"first\nsecond\n")
            conversation = self.service.waiting("line", messages=2)
            self.service.reply(conversation, "one")
            self.assertEqual(receive(client, 4), b"one\n")
            self.service.reply(conversation, "two")
            self.assertEqual(receive(client, 4), b"two\n")

    def test_an_answer_is_given_once_and_not_empty(self):
        with self.visit("raw") as client:
            client.sendall(b"hello")
            conversation = self.service.waiting("raw")
            self.assertNotEqual(self.service.cli("chat", "reply", conversation["name"], "").returncode, 0)
            self.assert_silent(client)
            sequence = self.service.sequence(conversation, "hello")
            self.service.reply(conversation, "yes", "--to", sequence)
            self.assertEqual(client.recv(1024), b"yes")
            again = self.service.cli("chat", "reply", conversation["name"], "no", "--to", sequence)
            self.assertEqual(again.returncode, 4, again.stderr)
            self.assert_silent(client)

    def test_nobody_at_the_desk(self):
        with self.visit("alone") as client:
            client.sendall(b"one\ntwo\n")
            expected = f"{UNATTENDED}\n".encode() * 2
            self.assertEqual(receive(client, len(expected)), expected)

    def test_a_peer_that_ended_its_side_is_still_answered(self):
        with self.visit("raw") as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            self.service.reply(self.service.waiting("raw"), "yes")
            self.assertEqual(receive_all(client), b"yes")

    def test_a_drain_answers_whoever_waits(self):
        desk = {"protocol": "chat"}
        with Service(chat=desk, qq=desk | {"transport": "udp"}, grace="5s") as service:
            with (
                contextlib.closing(service.connect("chat")) as idle,
                contextlib.closing(service.connect("chat")) as client,
                contextlib.closing(datagrams(service.port("qq"))) as peer,
            ):
                client.sendall(b"hello")
                peer.send(b"hello")
                service.waiting("chat")
                service.waiting("qq")
                service.stop()
                self.assertEqual(receive_all(client), UNATTENDED.encode())
                self.assertEqual(receive_all(idle), b"")
                self.assertEqual(peer.recv(1024), UNATTENDED.encode())

    def test_another_encoding(self):
        with self.visit("gbk") as client:
            client.sendall("你好\n".encode("gbk"))
            conversation = self.service.waiting("gbk")
            self.answer(conversation, "你好", "再见")
            self.assertEqual(receive(client, 5), "再见\n".encode("gbk"))

    def test_an_operator_sees_escapes_and_never_obeys_them(self):
        with self.visit("line") as client:
            client.sendall("\x1b[31mred\x07 \u202eevil\n".encode())
            conversation = self.service.waiting("line")
            text = conversation["lastMessage"]["text"]
            for part in ("red", "evil"):
                self.assertIn(part, text)
            for bad in ("\x1b", "\x07", "\u202e"):
                self.assertNotIn(bad, text)
            table = self.service.cli("chat", "inbox").stdout.decode()
            self.assertFalse({"\x1b", "\x07", "\u202e"} & set(table), table)
            self.service.reply(conversation, "seen")

    def test_people_with_telnet(self):
        with self.visit("people") as client:
            client.sendall(b"\xff\xfb\x01\xff\xfd\x03one\rtwo\r\nthree\n")
            conversation = self.service.waiting("people", messages=3)
            texts = [message["text"] for message in self.service.history(conversation)]
            self.assertEqual(texts, ["one", "two", "three"])

    def test_a_room_gives_each_message_to_all_the_others(self):
        with self.visit("room") as one, self.visit("room") as two, self.visit("room") as three:
            members = lambda: len(self.service.ask("session", "ls", "room").get("sessions", []))
            eventually(lambda: members() == 3, "three members in the room")
            one.sendall(b"hello\n")
            for other in (two, three):
                self.assertEqual(receive(other, 6), b"hello\n")
            two.sendall(b"hi\n")
            self.assertEqual([receive(one, 3), receive(three, 3)], [b"hi\n", b"hi\n"])
            for member in (one, two, three):
                self.assert_silent(member)


if __name__ == "__main__":
    unittest.main()
