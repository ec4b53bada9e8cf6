"""Strangers' clients against the service: who knows only a socket is served, and sees nothing that we added."""
import concurrent.futures
import unittest

from harness import PATIENCE, UNATTENDED, Service, run_client


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        chat, alone = {"protocol": "chat"}, {"unattended_after": "300ms"}
        cls.service = Service(
            ack={},
            ack_once={"once": True},
            shell={"protocol": "shell", "policy": "any"},
            programs={"protocol": "shell", "policy": "programs", "programs": ["echo"]},
            uppercase={"protocol": "uppercase"},
            chat=chat,
            qq=chat | {"transport": "udp"},
            chat_alone=chat | alone,
            qq_alone=chat | alone | {"transport": "udp", "unattended_reply": "gone fishing"},
        ).during(cls)

    def run_client(self, script, listener, lines):
        return run_client(script, self.service.port(listener), lines)

    def test_ack(self):
        self.assertEqual(self.run_client("ack_client.py", "ack", ["hello", "again"]), ["received data!!"] * 2)

    def test_ack_once_ends_the_visit(self):
        answers = self.run_client("ack_client.py", "ack-once", ["hello", "again"])
        self.assertEqual(answers, ["received data!!", "the server has gone"])

    def test_shell(self):
        answers = self.run_client(
            "shell_client.py", "shell", ["echo hello", "echo oops >&2", "exit 3", "seq 3000", "printf straße"]
        )
        self.assertEqual(answers, ["hello", "", "oops", "", "", *map(str, range(1, 3001)), "", "straße"])

    def test_shell_shows_a_refusal_and_goes_on(self):
        refusal, *rest = self.run_client("shell_client.py", "programs", ["id", "echo hello"])
        self.assertTrue(refusal and not refusal.startswith("uid="), refusal)
        self.assertIn("hello", rest)

    def test_uppercase(self):
        answers = self.run_client("uppercase_client.py", "uppercase", ["straße", "", "ὀδυσσεύς", "ŉ"])
        self.assertEqual(answers, ["STRASSE", "", "ὈΔΥΣΣΕΎΣ", "ʼN"])

    def test_chat_is_answered_by_the_operator(self):
        for script, listener in (("chat_client.py", "chat"), ("qq_client.py", "qq")):
            with self.subTest(listener), concurrent.futures.ThreadPoolExecutor() as pool:
                client = pool.submit(self.run_client, script, listener, ["is anyone there?", "thank you"])
                for question, answer in (("is anyone there?", "yes, grüß dich"), ("thank you", "bye")):
                    conversation = self.service.waiting(listener)
                    self.assertEqual(conversation["lastMessage"]["text"], question)
                    self.service.reply(conversation, answer)
                said = ["operator says: yes, grüß dich", "operator says: bye"]
                self.assertEqual(client.result(PATIENCE), said)

    def test_chat_with_nobody_at_the_desk(self):
        answers = self.run_client("chat_client.py", "chat-alone", ["hello", "hello?"])
        self.assertEqual(answers, [f"operator says: {UNATTENDED}"] * 2)
        self.assertEqual(self.run_client("qq_client.py", "qq-alone", ["hello"]), ["operator says: gone fishing"])


if __name__ == "__main__":
    unittest.main()
