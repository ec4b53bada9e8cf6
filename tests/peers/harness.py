"""What the tests here share: the service in a process of its own, strangers' scripts, sockets that never wait for ever.

Nothing sleeps to be in step with something else: own state is waited for by the event itself, foreign state (another
process's table, the kernel's queues) by `eventually`, which asks until a deadline and says what it was waiting for.
"""
import contextlib
import json
import os
import pathlib
import queue
import re
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
SOAK = os.environ.get("SWITCHBOARD_SOAK") == "1"
# Where `tests/run --tools` puts what is not in Python's own library.
PACKAGES = pathlib.Path(os.environ.get("SWITCHBOARD_PYTHON", HERE.parents[1] / "target/tools/python"))
PATIENCE = 10.0
# `serve` says where each part listens, a line each, its name first.
LISTENING = re.compile(r"^(?P<name>[a-z0-9-]+)\s.*?(?P<host>\d+\.\d+\.\d+\.\d+):(?P<port>\d+)")
UNATTENDED = "no operator is available"


def binary():
    """The program under test; missing is a failure, for a skipped test proves nothing."""
    path = pathlib.Path(os.environ.get("SWITCHBOARD_BIN", HERE.parents[1] / "target/release/switchboard")).absolute()
    if not path.is_file():
        raise RuntimeError(f"{path} does not exist: build it, or name another with SWITCHBOARD_BIN")
    return path


def eventually(condition, what, seconds=PATIENCE):
    """Asks until the condition is true, and returns what it returned."""
    deadline, pause = time.monotonic() + seconds, 0.0002
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds} s: {what}")
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def environment():
    """Ours without what would configure the service or its client behind the test's back."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SWITCHBOARD", "OTEL_"))}


def switchboard(*args, stdin=None, seconds=30, variables=None):
    """Runs the program once; stdin, stdout and stderr are bytes."""
    return subprocess.run(
        [binary(), *map(str, args)], input=stdin or b"", capture_output=True, timeout=seconds,
        env=environment() | (variables or {}),
    )


def toml(path, table):
    """A table and the tables in it. JSON's strings, numbers, booleans and lists are TOML's too."""
    values = [f"{k} = {json.dumps(v)}" for k, v in table.items() if not isinstance(v, dict)]
    inner = [toml([*path, k], v) for k, v in table.items() if isinstance(v, dict)]
    return "\n".join([*([f"[{'.'.join(path)}]"] if path else []), *values, *inner])


class Service:
    """`switchboard serve` with the listeners given, every address on port 0. Use with `with`."""

    def __init__(self, grace="2s", **listeners):
        self.names = [name.replace("_", "-") for name in listeners]
        table = {"protocol": "ack", "bind": "127.0.0.1:0"}
        # What its environment has besides.
        self.variables = {}
        self.config = {
            "grpc": {"address": "127.0.0.1:0"},
            "http": {"address": "127.0.0.1:0"},
            "store": {"path": ":memory:"},
            "shutdown": {"grace": grace},
            "telemetry": {"log": "warn"},
            "listeners": {n: {**table, **keys} for n, keys in zip(self.names, listeners.values())},
        }

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.folder.chmod(0o755)
            file = self.folder / "switchboard.toml"
            file.write_text(toml([], self.config))
            self.log = stack.enter_context(open(self.folder / "stderr", "w+", errors="replace"))
            self.process = self.launch([binary(), "serve", "--config", file])
            stack.callback(self.stop)
            self.read_addresses()
            self.stack = stack.pop_all()
        return self

    def launch(self, command, **more):
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True,
            **{"env": environment() | self.variables, **more},
        )

    def __exit__(self, *_):
        self.stack.close()

    def during(self, case):
        """Serves until the tests of a class are over; gives the service."""
        case.addClassCleanup(self.__enter__().__exit__)
        return self

    def read_addresses(self):
        lines, wanted, self.addresses = queue.Queue(), {*self.names, "grpc", "http"}, {}

        def read(stdout):
            with stdout:
                for line in stdout:
                    lines.put(line)
            lines.put(None)

        self.reader = threading.Thread(target=read, args=[self.process.stdout], daemon=True)
        self.reader.start()
        said, deadline = [], time.monotonic() + PATIENCE
        while wanted - self.addresses.keys():
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                missing = sorted(wanted - self.addresses.keys())
                raise AssertionError(f"serve did not say where {missing} listen: {''.join(said)}{self.stderr()}")
            said.append(line)
            if found := LISTENING.match(line):
                self.addresses[found["name"]] = (found["host"], int(found["port"]))

    def stderr(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        """Asks the service to end and waits. Ending late, with another code than 0, or after a panic is a failure."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = "killed, for it did not end on SIGTERM"
        self.reader.join(PATIENCE)
        if code != 0 or "panicked" in self.stderr():
            raise AssertionError(f"the service ended with {code}: {self.stderr()}")

    def port(self, name):
        return self.addresses[name][1]

    def connect(self, name):
        return connect(self.port(name))

    def cli(self, *args):
        """A control command against this service."""
        return switchboard(*args, "--endpoint", f"http://127.0.0.1:{self.port('grpc')}")

    def ask(self, *args):
        """The JSON that a control command answers."""
        done = self.cli(*args, "-o", "json")
        if done.returncode:
            raise AssertionError(f"{args}: exit code {done.returncode}: {done.stderr.decode()}")
        return json.loads(done.stdout)

    def waiting(self, listener, messages=1):
        """The one conversation of a listener, once as many of its messages wait for an answer."""

        def find():
            for c in self.ask("chat", "inbox", listener).get("conversations", []):
                if c["state"] != "STATE_CLOSED" and c.get("unansweredMessages", 0) >= messages:
                    return c

        return eventually(find, f"{messages} messages waiting at {listener}")

    def history(self, conversation):
        return self.ask("chat", "history", conversation["name"]).get("messages", [])

    def sequence(self, conversation, text):
        return next(m["sequence"] for m in self.history(conversation) if m["text"] == text)

    def reply(self, conversation, text, *flags):
        done = self.cli("chat", "reply", conversation["name"], text, *flags)
        if done.returncode:
            raise AssertionError(f"reply: exit code {done.returncode}: {done.stderr.decode()}")

    def close_reason(self, listener, address):
        """Why the session of a peer ended, as the API says it."""

        def find():
            for s in self.ask("session", "ls", listener, "--closed").get("sessions", []):
                if s["peer"] == "%s:%d" % address:
                    return s.get("closeReason")

        return eventually(find, f"a closed session of {address} at {listener}")

    def dropped(self, listener):
        """How many messages or peers a listener turned away, whatever the reason."""
        answer = self.ask("listener", "get", listener)
        status = answer.get("listener", answer).get("status", {})
        return sum(int(n) for n in status.get("rejectedByReason", {}).values())


def run_client(script, port, lines, seconds=30):
    """A stranger's client, given its lines and a `q`; returns the lines it printed."""
    done = subprocess.run(
        [sys.executable, HERE / script, "127.0.0.1", str(port)],
        input="".join(line + "\n" for line in [*lines, "q"]), capture_output=True, text=True, timeout=seconds,
        env={**environment(), "PYTHONUTF8": "1"},
    )
    if done.returncode:
        raise AssertionError(f"{script} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.splitlines()


@contextlib.contextmanager
def running_server(script, *args):
    """A stranger's server on a free port; gives the port."""
    process = subprocess.Popen(
        [sys.executable, HERE / script, "0", *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        word, port = process.stdout.readline().split()
        assert word == "listening", word
        yield int(port)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def peculiar_server(behave):
    """A TCP server for one visit, which is whatever `behave(connection)` does; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)

        def serve():
            with contextlib.suppress(OSError), server.accept()[0] as connection:
                connection.settimeout(PATIENCE)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                behave(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(PATIENCE)


def connect(port, host="127.0.0.1"):
    connection = socket.create_connection((host, port), PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def datagrams(port, host="127.0.0.1"):
    """A UDP socket that hears only the address it asks."""
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    asker.settimeout(PATIENCE)
    asker.connect((host, port))
    return asker


def receive(connection, size):
    """Exactly `size` bytes."""
    pieces, missing = [], size
    while missing:
        piece = connection.recv(min(missing, 1 << 20))
        if not piece:
            raise AssertionError(f"closed with {missing} of {size} bytes missing")
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def receive_all(connection):
    """Everything up to the peer's end."""
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def arrived(connection):
    """Whether bytes, a datagram or the end have come and wait to be read."""
    return bool(select.select([connection], [], [], 0)[0])


def prefixed(message):
    """A message under framing `length`."""
    return struct.pack("<i", len(message)) + message


def reset(connection):
    """Closes by RST, as a crashed peer's kernel does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def unread_by_peer(connection):
    """Bytes that the other end, on this machine, has in its kernel and has not read; from the kernel's own table."""
    ends = [b"%08X:%04X" % (struct.unpack("=I", socket.inet_aton(h))[0], p)
            for h, p in (connection.getpeername(), connection.getsockname())]
    for row in pathlib.Path("/proc/net/tcp").read_bytes().splitlines():
        fields = row.split()
        if fields[1:3] == ends:
            return int(fields[4].split(b":")[1], 16)
    raise AssertionError(f"{connection} is not in /proc/net/tcp")


def processes(marker):
    """The live processes whose command line holds the marker, one word that no other command has."""
    found, marker = [], marker.encode()
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if marker in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
