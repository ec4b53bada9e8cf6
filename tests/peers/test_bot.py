"""The bot that the README shows, as a user runs it: with stubs made of the protos, against a service of its own."""
import contextlib
import subprocess
import sys
import tempfile
import unittest

from harness import HERE, PACKAGES, Service, connect, environment, eventually, receive

PROTO = HERE.parents[1] / "proto"


class Bot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.environment = environment() | {"PYTHONPATH": f"{folder.name}:{PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"}
        protos = sorted((PROTO / "switchboard/v1").glob("*.proto"))
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--python_out={folder.name}",
             f"--grpc_python_out={folder.name}", *protos],
            check=True, env=cls.environment,
        )

    @contextlib.contextmanager
    def bot(self, address, listener, name):
        with open(f"{self.folder}/{name}", "w+") as log:
            process = subprocess.Popen(
                [sys.executable, HERE / "bot.py", address, listener, name],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait()
                log.seek(0)
                self.assertNotIn("Traceback", said := log.read(), said)

    def ask(self, client, question):
        client.sendall(f"{question}\n".encode())
        expected = f"you said: {question}\n".encode()
        self.assertEqual(receive(client, len(expected)), expected)

    def test_two_bots_answer_each_message_once(self):
        chat = {"protocol": "chat", "framing": "line"}
        with Service(chat=chat) as service, contextlib.ExitStack() as open_:
            address = f"127.0.0.1:{service.port('grpc')}"
            clients = [open_.enter_context(contextlib.closing(service.connect("chat"))) for _ in range(20)]
            for n, client in enumerate(clients):
                client.sendall(f"one {n}\ntwo {n}\n".encode())
            for name in ("bot-a", "bot-b"):
                open_.enter_context(self.bot(address, "chat", name))
            for n, client in enumerate(clients):
                expected = f"you said: one {n}\nyou said: two {n}\n".encode()
                self.assertEqual(receive(client, len(expected)), expected)
            for n, client in enumerate(clients):
                self.ask(client, f"three {n}")

            def states():
                return {c["state"] for c in service.ask("chat", "inbox", "chat")["conversations"]}

            eventually(lambda: states() == {"STATE_ANSWERED"}, "all are given back")

    def test_it_comes_back_when_the_service_does(self):
        socket = f"{self.folder}/switchboard.sock"

        def service():
            made = Service(chat={"protocol": "chat", "framing": "line"})
            made.config["grpc"]["socket"] = socket
            return made

        with self.bot(f"unix:{socket}", "chat", "bot") as bot:
            for question in ("before", "after"):
                with service() as running, contextlib.closing(connect(running.port("chat"))) as client:
                    self.ask(client, question)
                self.assertIsNone(bot.poll())


if __name__ == "__main__":
    unittest.main()
