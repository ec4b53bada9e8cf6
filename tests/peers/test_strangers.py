"""The strangers' clients against the strangers' servers: what the other tests here lean on works without us."""
import unittest

from harness import run_client, running_server


class Strangers(unittest.TestCase):
    def test_ack(self):
        with running_server("ack_server.py") as port:
            self.assertEqual(run_client("ack_client.py", port, ["hello", "again"]), ["received data!!"] * 2)

    def test_shell(self):
        with running_server("shell_server.py") as port:
            lines = run_client("shell_client.py", port, ["echo hello", "echo oops >&2", "seq 3000"])
        self.assertEqual(lines, ["hello", "", "oops", "", *map(str, range(1, 3001)), ""])

    def test_uppercase(self):
        with running_server("uppercase_server.py") as port:
            self.assertEqual(run_client("uppercase_client.py", port, ["straße", "", "abc"]), ["STRASSE", "", "ABC"])

    def test_chat(self):
        for server, client in (("chat_server.py", "chat_client.py"), ("qq_server.py", "qq_client.py")):
            with self.subTest(server), running_server(server, "we are closed") as port:
                self.assertEqual(run_client(client, port, ["hello"]), ["operator says: we are closed"])


if __name__ == "__main__":
    unittest.main()
