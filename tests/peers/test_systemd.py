"""What systemd expects of a service and gives it: the notify socket, the watchdog, reloads, sockets that it binds, the
journal. A stand-in gives and reads what systemd would; the unit itself is judged by systemd's own tools where there are any.
"""
import contextlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from harness import PATIENCE, Service, binary, connect, datagrams, environment, receive

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy/systemd"
# Becomes the service, with the sockets whose numbers it is told at 3 and above, as systemd has it.
BECOME = """
import fcntl, os, sys
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 200) for fd in sys.argv[1].split(",") if fd]
for at, fd in enumerate(high):
    os.dup2(fd, 3 + at)
os.closerange(3 + len(high), 200)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.environ["WATCHDOG_PID"] = os.environ.get("WATCHDOG_PID", str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """The end of a notify socket that systemd has."""

    def __init__(self, abstract=False):
        self.folder = tempfile.TemporaryDirectory()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.place = f"@switchboard-test-{os.getpid()}-{id(self)}" if abstract else f"{self.folder.name}/notify"
        self.socket.bind(self.place.replace("@", "\0", 1))
        self.told = []

    def close(self):
        self.socket.close()
        self.folder.cleanup()

    def hears(self, word, seconds=PATIENCE):
        """The first message from now on that has a line beginning with the word, as a table."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise AssertionError(f"nothing of {word} within {seconds} s; heard {self.told}")
            message = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())
            self.told.append(message)
            if word in message:
                return message


class Managed(Service):
    """The service as systemd starts it: with a manager to talk to, sockets (name, socket) and variables."""

    def __init__(self, manager=None, sockets=(), variables=None, grace="2s", log="info", **listeners):
        super().__init__(grace, **listeners)
        self.config["telemetry"]["log"] = log
        self.sockets, self.variables = list(sockets), dict(variables or {})
        if manager:
            self.variables["NOTIFY_SOCKET"] = manager.place
        if self.sockets:
            self.variables = {
                "LISTEN_FDS": str(len(self.sockets)),
                "LISTEN_FDNAMES": ":".join(name for name, _ in self.sockets),
                **self.variables,
            }

    def launch(self, command, **more):
        numbers = [one.fileno() for _, one in self.sockets]
        variables = {
            key: value.replace("LOG", "%d:%d" % (os.fstat(self.log.fileno()).st_dev, os.fstat(self.log.fileno()).st_ino))
            for key, value in self.variables.items()
        }
        become = [sys.executable, "-c", BECOME, ",".join(map(str, numbers))]
        return super().launch(
            [*become, *map(str, command)], pass_fds=numbers, env={**environment(), **variables}, **more
        )

    def ends(self, seconds=PATIENCE):
        return self.process.wait(seconds)


def listening(kind=socket.SOCK_STREAM, place=("127.0.0.1", 0), family=socket.AF_INET):
    one = socket.socket(family, kind)
    one.bind(place)
    if kind == socket.SOCK_STREAM:
        one.listen(64)
    return one


def acknowledged(connection, what=b"hello"):
    connection.sendall(what)
    return receive(connection, 15)


class TheManagerIsTold(unittest.TestCase):
    def setUp(self):
        self.manager = Manager()
        self.addCleanup(self.manager.close)

    def test_that_all_serves_and_that_it_leaves(self):
        for abstract in (False, True):
            with self.subTest(abstract=abstract), contextlib.closing(Manager(abstract)) as manager:
                with Managed(manager, ack={}, pager={"protocol": "chat"}) as service:
                    ready = manager.hears("READY")
                    self.assertEqual(ready["READY"], "1")
                    self.assertEqual(ready["STATUS"], "2 of 2 listeners serve, 0 sessions")
                    with connect(service.addresses["ack"][1]) as peer:
                        self.assertEqual(acknowledged(peer), b"received data!!")
                        service.process.send_signal(signal.SIGTERM)
                        self.assertEqual(manager.hears("STOPPING")["STOPPING"], "1")
                    self.assertEqual(service.ends(), 0)

    def test_how_it_fares_when_that_changes(self):
        with Managed(self.manager, ack={}, other={}) as service:
            self.manager.hears("READY")
            self.assertEqual(service.cli("listener", "stop", "other").returncode, 0)
            deadline = time.monotonic() + PATIENCE
            while self.manager.hears("STATUS")["STATUS"] != "1 of 2 listeners serve, 0 sessions":
                self.assertLess(time.monotonic(), deadline, self.manager.told)

    def test_when_a_reload_begins_and_when_it_is_over(self):
        with Managed(self.manager, ack={}) as service:
            self.manager.hears("READY")
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            file = service.folder / "switchboard.toml"
            file.write_text(file.read_text() + '\n[listeners.more]\nprotocol = "ack"\nbind = "127.0.0.1:0"\n')
            service.process.send_signal(signal.SIGHUP)
            began = self.manager.hears("RELOADING")
            self.assertEqual(began["RELOADING"], "1")
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self.assertTrue(before <= int(began["MONOTONIC_USEC"]) <= now, (before, began, now))
            self.assertEqual(self.manager.hears("READY")["READY"], "1")
            self.assertIn("more", [one["name"].split("/")[-1] for one in service.ask("listener", "ls")["listeners"]])

    def test_that_it_lives_as_often_as_its_watchdog_wants(self):
        with Managed(self.manager, variables={"WATCHDOG_USEC": "400000"}, ack={}) as service:
            self.manager.hears("READY")
            self.manager.hears("WATCHDOG")
            began = time.monotonic()
            for _ in range(4):
                self.manager.hears("WATCHDOG")
            took = time.monotonic() - began
            # Every 0.2 s; a machine that is busy may be late.
            self.assertGreater(took, 0.6)
            self.assertLess(took, PATIENCE / 2)
            # A process that does not run gives no sign.
            service.process.send_signal(signal.SIGSTOP)
            with contextlib.suppress(AssertionError):
                while True:
                    self.manager.hears("WATCHDOG", 0.5)
            with self.assertRaises(AssertionError):
                self.manager.hears("WATCHDOG", 0.5)
            service.process.send_signal(signal.SIGCONT)
            self.manager.hears("WATCHDOG")

    def test_nothing_of_life_when_the_watchdog_is_another_processs(self):
        with Managed(self.manager, variables={"WATCHDOG_USEC": "10000", "WATCHDOG_PID": "1"}, ack={}) as service:
            self.manager.hears("READY")
            service.cli("listener", "stop", "ack")
            self.manager.hears("STATUS")
            self.assertFalse([told for told in self.manager.told if "WATCHDOG" in told])

    def test_that_a_drain_takes_more_time(self):
        with Managed(self.manager, grace="60s", pager={"protocol": "chat"}) as service:
            self.manager.hears("READY")
            with connect(service.addresses["pager"][1]) as peer:
                peer.sendall(b"is anybody there?")
                service.waiting("pager")
                service.process.send_signal(signal.SIGTERM)
                self.manager.hears("STOPPING")
                more = self.manager.hears("EXTEND_TIMEOUT_USEC")
                self.assertGreater(int(more["EXTEND_TIMEOUT_USEC"]), 5_000_000)
                service.process.send_signal(signal.SIGTERM)
                self.assertEqual(service.ends(), 0)

    def test_but_is_not_waited_for(self):
        """Its queue is full, and it does not read; or it is gone."""
        full, gone = Manager(), Manager()
        self.addCleanup(full.close)
        gone.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as crowd:
            crowd.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    crowd.sendto(b"X=1", full.place)
            for manager in (full, gone):
                with self.subTest(manager.place), Managed(manager, variables={"WATCHDOG_USEC": "100000"}, ack={}) as service:
                    with connect(service.addresses["ack"][1]) as peer:
                        self.assertEqual(acknowledged(peer), b"received data!!")
                    began = time.monotonic()
                    service.process.send_signal(signal.SIGTERM)
                    self.assertEqual(service.ends(), 0)
                    self.assertLess(time.monotonic() - began, 3)


class SocketsThatArePassed(unittest.TestCase):
    def test_are_served_by_whom_they_are_for_and_whoever_came_before_is_served_too(self):
        with contextlib.ExitStack() as stack:
            named, tcp, grpc, http = (stack.enter_context(listening()) for _ in range(4))
            udp = stack.enter_context(listening(socket.SOCK_DGRAM))
            port = tcp.getsockname()[1]
            early = stack.enter_context(connect(named.getsockname()[1]))
            early.sendall(b"before it starts")
            asker = stack.enter_context(datagrams(udp.getsockname()[1]))
            asker.send(b"before")
            sockets = [("named", named), ("x.socket", tcp), ("x.socket", udp), ("grpc", grpc), ("http", http)]
            service = Managed(
                sockets=sockets, named={}, by_address={"bind": f"127.0.0.1:{port}"},
                upper={"protocol": "uppercase", "bind": "127.0.0.1:%d" % udp.getsockname()[1]},
            )
            stack.enter_context(service)
            self.assertEqual(receive(early, 15), b"received data!!")
            self.assertEqual(asker.recv(64), b"BEFORE")
            for name, one in [("named", named), ("by-address", tcp), ("upper", udp), ("grpc", grpc), ("http", http)]:
                self.assertEqual(service.addresses[name], one.getsockname(), name)
            with connect(port) as peer:
                self.assertEqual(acknowledged(peer), b"received data!!")
            # The control plane and the HTTP side answer there.
            self.assertIn("listeners", service.ask("listener", "ls"))
            with connect(http.getsockname()[1]) as peer:
                peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                self.assertIn(b"200", peer.recv(64))
            self.assertNotIn("is not used", service.stderr())

    def test_outlive_their_listener_and_the_process(self):
        with listening() as tcp, listening(socket.SOCK_DGRAM) as udp:
            ports = tcp.getsockname()[1], udp.getsockname()[1]
            sockets = [("ack", tcp), ("upper", udp)]
            listeners = {"ack": {}, "upper": {"protocol": "uppercase"}}
            with Managed(sockets=sockets, **listeners) as service, datagrams(ports[1]) as asker:
                for name in ("ack", "upper"):
                    stopped = service.cli("listener", "stop", name)
                    self.assertEqual(stopped.returncode, 0, stopped.stderr)
                with connect(ports[0]) as peer:
                    peer.sendall(b"while it is stopped")
                    asker.send(b"meanwhile")
                    for name in ("ack", "upper"):
                        started = service.cli("listener", "start", name)
                        self.assertEqual(started.returncode, 0, started.stderr)
                    self.assertEqual(receive(peer, 15), b"received data!!")
                    self.assertEqual(asker.recv(64), b"MEANWHILE")
                service.process.send_signal(signal.SIGTERM)
                self.assertEqual(service.ends(), 0)
            with connect(ports[0]) as peer, datagrams(ports[1]) as asker:
                peer.sendall(b"between two processes")
                asker.send(b"between")
                with Managed(sockets=sockets, **listeners):
                    self.assertEqual(receive(peer, 15), b"received data!!")
                    self.assertEqual(asker.recv(64), b"BETWEEN")

    def test_turn_away_whom_a_pause_would_refuse(self):
        with listening() as tcp, Managed(sockets=[("ack", tcp)], ack={}) as service:
            paused = service.cli("listener", "pause", "ack", "--mode", "refuse")
            self.assertEqual(paused.returncode, 0, paused.stderr)
            with connect(tcp.getsockname()[1]) as peer:
                self.assertIn(b"unavailable", peer.recv(64))
            self.assertIn("cannot refuse; peers are turned away instead", service.stderr())
            resumed = service.cli("listener", "resume", "ack")
            self.assertEqual(resumed.returncode, 0, resumed.stderr)
            with connect(tcp.getsockname()[1]) as peer:
                self.assertEqual(acknowledged(peer), b"received data!!")

    def test_may_be_the_way_to_the_control_plane_in_the_file_system(self):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/control"
            with listening(place=path, family=socket.AF_UNIX) as unix:
                with Managed(sockets=[("grpc", unix)], ack={}) as service:
                    asked = subprocess.run(
                        [binary(), "listener", "ls", "--endpoint", f"unix:{path}"],
                        capture_output=True, env=environment(), timeout=30,
                    )
                    self.assertEqual(asked.returncode, 0, asked.stderr)
                    service.process.send_signal(signal.SIGTERM)
                    self.assertEqual(service.ends(), 0)
                self.assertTrue(os.path.exists(path), "its file is whoever's who passed it")

    def test_open_nothing_to_the_network_that_the_configuration_does_not(self):
        everywhere = ("0.0.0.0", 0)
        shell = {"protocol": "shell", "policy": "any"}
        with listening(place=everywhere) as tcp, listening(socket.SOCK_DGRAM, place=everywhere) as udp:
            sockets = [("shell", tcp), ("upper", udp)]
            with Managed(sockets=sockets, shell=shell, upper={"protocol": "uppercase"}) as service:
                for name in ("shell", "upper"):
                    self.assertEqual(service.ask("listener", "get", name)["state"], "STATE_FAILED", name)
                self.assertIn("open to the network, and this address is not", service.stderr())
            # What is to be open is.
            with Managed(sockets=sockets[1:], upper={"protocol": "uppercase", "bind": "0.0.0.0:0"}) as service:
                self.assertEqual(service.addresses["upper"], udp.getsockname())
        with listening(place=everywhere) as tcp:
            for name in ("grpc", "http"):
                service = Managed(sockets=[(name, tcp)], ack={})
                with self.subTest(name), self.assertRaisesRegex(AssertionError, "open to the network"), service:
                    pass

    def test_that_are_nobodys_are_told_and_left(self):
        with listening() as tcp, contextlib.closing(socket.create_connection(tcp.getsockname())) as connection:
            with open("/dev/null") as file:
                sockets = [("stranger", tcp), ("connection", connection), ("file", file)]
                with Managed(sockets=sockets, ack={}) as service:
                    told = [json.loads(line) for line in service.stderr().splitlines()]
        unused = {one["name"]: one["socket"] for one in told if "is not used" in one["message"]}
        self.assertEqual(unused["stranger"], "tcp 127.0.0.1:%d" % tcp_port(told))
        self.assertIn("no socket that listens", unused["connection"])
        self.assertIn("no socket", unused["file"])

    def test_of_another_process_are_not_taken(self):
        with listening() as tcp:
            variables = {"LISTEN_PID": "1"}
            with Managed(sockets=[("ack", tcp)], variables=variables, ack={}) as service:
                self.assertNotEqual(service.addresses["ack"], tcp.getsockname())

    def test_and_all_that_systemd_gives_are_kept_from_the_commands_of_a_shell(self):
        manager = Manager()
        self.addCleanup(manager.close)
        shell = {"protocol": "shell", "policy": "any", "sandbox": {"isolation": "none", "min_isolation": "none",
                 "run_as": f"{os.getuid()}:{os.getgid()}"}}
        with listening() as tcp:
            with Managed(manager, sockets=[("shell", tcp)], variables={"WATCHDOG_USEC": "60000000"}, shell=shell) as service:
                with connect(service.addresses["shell"][1]) as peer:
                    peer.sendall(b"env; echo; ls -l /proc/self/fd")
                    head = json.loads(receive(peer, int.from_bytes(receive(peer, 4), "little")))
                    said = receive(peer, head["len"]).decode()
        self.assertIn("PATH=", said)
        for word in ("LISTEN_", "NOTIFY_SOCKET", "WATCHDOG", "JOURNAL_STREAM", "socket:"):
            self.assertNotIn(word, said)


def tcp_port(told):
    return int(next(one["socket"] for one in told if one.get("name") == "stranger").rsplit(":", 1)[1])


class TheJournal(unittest.TestCase):
    def test_gets_a_priority_for_each_line_and_keeps_the_time_itself(self):
        with Managed(variables={"JOURNAL_STREAM": "LOG"}, ack={}) as service:
            lines = service.stderr().splitlines()
        self.assertTrue(lines)
        for line in lines:
            self.assertRegex(line, r"^<[3467]>(ERROR|WARN|INFO|DEBUG) switchboard::")

    def test_that_is_another_file_is_none(self):
        with Managed(variables={"JOURNAL_STREAM": "1:2"}, ack={}) as service:
            for line in service.stderr().splitlines():
                self.assertIn("timestamp", json.loads(line))


    def test_that_is_stuck_holds_nobody_and_is_told_what_it_lost(self):
        """A pipe that nobody reads, until somebody does; and one that nobody ever does."""
        for read in (True, False):
            ours, theirs = os.pipe()
            with self.subTest(read=read), os.fdopen(ours, "rb", buffering=0) as pipe:
                with Piped(theirs, log="trace", variables={"JOURNAL_STREAM": "LOG"}, ack={}) as service:
                    deadline = time.monotonic() + 3 * PATIENCE
                    while not lost(service):
                        self.assertLess(time.monotonic(), deadline, "nothing is lost")
                        for _ in range(100):
                            with connect(service.addresses["ack"][1]) as peer:
                                self.assertEqual(acknowledged(peer), b"received data!!")
                    said = b""
                    while read and b"log lines were lost" not in said:
                        self.assertTrue(select.select([pipe], [], [], PATIENCE)[0], "nothing more is said")
                        said += pipe.read(1 << 16)
                    if read:
                        self.assertRegex(said, rb"\n<4>WARN switchboard::telemetry::logs\S*: log lines were lost: [^\n]* lost=[1-9]")
                        continue
                    began = time.monotonic()
                    service.process.send_signal(signal.SIGTERM)
                    self.assertEqual(service.ends(), 0)
                    self.assertLess(time.monotonic() - began, 1.5)


class Piped(Managed):
    """The service with the end of a pipe for its standard error."""

    def __init__(self, pipe, **more):
        super().__init__(**more)
        self.pipe = pipe

    def launch(self, command):
        self.log.close()
        self.log = os.fdopen(self.pipe, "w")
        try:
            return super().launch(command)
        finally:
            self.log.close()

    def stderr(self):
        return ""


def lost(service):
    """Log lines that were lost, as a scrape tells."""
    with connect(service.addresses["http"][1]) as scraper:
        scraper.sendall(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n")
        text = b""
        while piece := scraper.recv(1 << 16):
            text += piece
    found = re.search(rb'switchboard_telemetry_dropped\w*{[^}]*signal="logs"[^}]*} (\S+)', text)
    return float(found[1])


class TheUnit(unittest.TestCase):
    """Read as a table whose keys may come more than once."""

    def setUp(self):
        self.unit = {}
        section = None
        for line in (DEPLOY / "switchboard.service").read_text().splitlines():
            if line.startswith("["):
                section = self.unit.setdefault(line.strip("[]"), {})
            elif line and not line.startswith("#"):
                key, value = line.split("=", 1)
                section.setdefault(key, []).append(value)

    def test_says_what_the_service_does(self):
        service = {key: values[-1] for key, values in self.unit["Service"].items()}
        for key, value in {
            "Type": "notify", "NotifyAccess": "main", "KillMode": "mixed", "Restart": "on-failure",
            "RestartPreventExitStatus": "78", "LimitNOFILE": "65536", "LimitCORE": "0", "OOMPolicy": "continue",
            "DynamicUser": "yes", "StateDirectory": "switchboard", "RuntimeDirectory": "switchboard",
            "ProtectSystem": "strict", "NoNewPrivileges": "yes",
        }.items():
            self.assertEqual(service.get(key), value, key)
        self.assertIn("WatchdogSec", service)
        self.assertEqual(service["ExecReload"], "/bin/kill -HUP $MAINPID")
        # What it is told to listen at is where it may.
        path = next(v for v in self.unit["Service"]["Environment"] if "GRPC__SOCKET" in v).split("=", 1)[1]
        self.assertEqual(pathlib.Path(path).parent, pathlib.Path("/run", service["RuntimeDirectory"]))
        # The cage of a shell makes namespaces, and mounts a /proc of its own: the kernel wants to see a whole one.
        self.assertLessEqual({"user", "mnt", "pid", "net", "ipc", "uts"}, set(service["RestrictNamespaces"].split()))
        for key in ("ProtectKernelTunables", "ProtectKernelLogs", "ProcSubset", "ProtectControlGroups"):
            self.assertNotIn(key, service)

    def test_a_configuration_that_is_wrong_ends_as_the_unit_says(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "switchboard.toml")
            file.write_text("[listeners.x]\nprotocol = 'no such thing'\n")
            ended = subprocess.run([binary(), "serve", "--config", file], env=environment(), capture_output=True, timeout=30)
        self.assertEqual(str(ended.returncode), self.unit["Service"]["RestartPreventExitStatus"][0])

    def test_its_sockets_are_those_of_the_shipped_configuration(self):
        socket_unit = (DEPLOY / "switchboard.socket").read_text()
        wanted = set(re.findall(r"^Listen(Stream|Datagram)=(.*)$", socket_unit, re.M))
        config = (DEPLOY.parent / "switchboard.toml").read_text()
        for _, address in wanted:
            self.assertIn(f'"{address}"', config)

    # In CI a check that was not made is a failure.
    @unittest.skipUnless(shutil.which("systemd-analyze") or os.environ.get("CI"), "this machine has no systemd-analyze")
    def test_is_what_systemd_takes_and_exposes_little(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("switchboard.service", "switchboard.socket"):
                text = (DEPLOY / name).read_text()
                # Where it is installed to there is nothing here, and what systemd starts must be there.
                pathlib.Path(folder, name).write_text(text.replace("/usr/local/bin/switchboard", str(binary())))
            units = [f"{folder}/switchboard.service", f"{folder}/switchboard.socket"]
            verified = self.run_systemd("verify", "--man=no", *units)
            complaints = [line for line in verified.stderr.splitlines() if folder in line]
            # Of systemd 254, and of no harm before.
            complaints = [line for line in complaints if "Unknown key 'DelegateSubgroup'" not in line]
            self.assertEqual((verified.returncode, complaints), (0, []), verified.stderr)
            with_shell = self.exposure(units[0])
            drop_in = (DEPLOY / "switchboard-no-shell.conf").read_text()
            pathlib.Path(units[0]).write_text((DEPLOY / "switchboard.service").read_text() + drop_in)
            without = self.exposure(units[0])
        self.assertLess(with_shell, 4)
        self.assertLess(without, 2)

    def exposure(self, unit):
        judged = self.run_systemd("security", "--offline=true", "--no-pager", unit)
        found = re.search(r"exposure level for \S+: ([\d.]+)", judged.stdout)
        self.assertTrue(found, judged.stdout + judged.stderr)
        return float(found[1])

    def run_systemd(self, *args):
        return subprocess.run(
            ["systemd-analyze", *args], capture_output=True, text=True, timeout=60, env={**environment(), "LC_ALL": "C.UTF-8"}
        )


if __name__ == "__main__":
    unittest.main()
