"""Python clients that do not speak UTF-8: what they say is read as Python meant it, and they can read the answers."""
import contextlib
import unittest

from harness import Service, connect, datagrams, prefixed, receive

# Every character that Python's GBK writes with two bytes, in pieces that are messages. The euro's sign is one byte by
# itself in WHATWG's GBK, which Python's has not.
HAN = [c for c in map(chr, range(0x80, 0x10000)) if len(c.encode("gbk", "ignore")) == 2]
PIECE = 2_000
# Beyond GBK: planes of their own, and what has four bytes.
RARE = "𠀀𪚥😀𝄞ༀ᠁ꀀ˩ǹ"


class Text(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        chat = {"protocol": "chat", "framing": "length"}
        cls.service = Service(
            gbk=chat | {"encoding": "gbk"},
            gb18030=chat | {"encoding": "gb18030"},
            auto=chat | {"encoding": "auto"},
            qq={"protocol": "chat", "transport": "udp", "encoding": "gbk"},
            qq_auto={"protocol": "chat", "transport": "udp", "encoding": "auto"},
        ).during(cls)

    def exchange(self, client, listener, said, answer):
        """Says something, and is answered; gives what came back as bytes."""
        client.sendall(prefixed(said))
        conversation = self.service.waiting(listener)
        self.service.reply(conversation, answer)
        length = int.from_bytes(receive(client, 4), "little")
        return self.service.history(conversation)[-2]["text"], receive(client, length)

    def test_every_character_of_gbk_both_ways(self):
        for listener in ("gbk", "gb18030", "auto"):
            with contextlib.closing(connect(self.service.port(listener))) as client:
                for at in range(0, len(HAN), PIECE):
                    text = "".join(HAN[at:at + PIECE])
                    read, answer = self.exchange(client, listener, text.encode("gbk"), text)
                    self.assertEqual(read, text, listener)
                    self.assertEqual(answer.decode("gbk"), text, listener)

    def test_what_gbk_has_not(self):
        for listener in ("gb18030", "auto"):
            with contextlib.closing(connect(self.service.port(listener))) as client:
                read, answer = self.exchange(client, listener, RARE.encode("gb18030"), RARE)
                self.assertEqual((read, answer), (RARE, RARE.encode("gb18030")), listener)
        with contextlib.closing(connect(self.service.port("gbk"))) as client:
            client.sendall(prefixed("你好".encode("gbk")))
            conversation = self.service.waiting("gbk")
            refused = self.service.cli("chat", "reply", conversation["name"], "你好 😀")
            self.assertEqual(refused.returncode, 2, refused.stderr)
            self.service.reply(conversation, "好")
            self.assertEqual(receive(client, 6), prefixed("好".encode("gbk")))

    def test_over_udp(self):
        for listener, coding in (("qq", "gbk"), ("qq_auto", "gbk"), ("qq_auto", "utf-8")):
            name = listener.replace("_", "-")
            with self.subTest(listener), contextlib.closing(datagrams(self.service.port(name))) as client:
                for said, answer in (("在吗?", "在"), ("ok", "再见")):
                    client.send(said.encode(coding))
                    conversation = self.service.waiting(name)
                    self.assertEqual(conversation["lastMessage"]["text"], said)
                    self.service.reply(conversation, answer)
                    self.assertEqual(client.recv(1024).decode(coding), answer)


if __name__ == "__main__":
    unittest.main()
