#!/usr/bin/env python3
"""What telemetry costs: throughput with everything told, against throughput with nothing told.

    telemetry.py --binary target/release/switchboard --load PATH [--rounds 15] [--seconds 2] [--lock FILE]
                 [--collector up|down|hang|slow|garbage|all] [SUITE ...]

Suites: udp tcp-64 room. A round runs each suite twice, once with telemetry and once without, and the order of the two
changes from round to round, so that what drifts meets both. Told: spans and metrics go to a collector on loopback, sampled
as by default, and /metrics is read every second. The collector takes all (up), does not listen (down), never answers (hang),
answers a byte a second (slow) or what is no HTTP (garbage); `all` is each of them in turn. Prints of each collector and suite
the medians, and the median of the rounds' ratios told/silent; how much memory the service had more when it told; and what
the collector got. PATH is a load generator that takes `udp|tcp|room HOST PORT SECONDS ...` and
prints `ops_per_s=N`. The service has the first core, all else the second. --lock is held during a round, for machines on
which others measure too.

Exit 0 when every such ratio is at least 0.97, or 0.98 when the collector is not up, 1 when one is below, 2 when something did
not run. Needs Linux and two cores.
"""
import argparse, contextlib, fcntl, os, pathlib, re, socket, statistics, subprocess, sys, tempfile, threading, time, urllib.request

# What telemetry may cost, and what a collector that misbehaves may.
LEAST, LEAST_IN_TROUBLE = 0.97, 0.98
CONFIGURATION = """
[grpc]
address = "127.0.0.1:0"
[http]
address = "127.0.0.1:0"
[store]
path = ":memory:"
[telemetry]
log = "error"
[listeners.udp]
protocol = "uppercase"
bind = "127.0.0.1:0"
[listeners.tcp]
protocol = "ack"
bind = "127.0.0.1:0"
[listeners.room]
protocol = "chat"
bind = "127.0.0.1:0"
mode = "room"
pace = "free"
framing = "line"
[listeners.room.limits]
max_sessions_per_source = 2000
"""
# suite: (listener, kind of load, its arguments after HOST PORT SECONDS)
SUITES = {
    "udp": ("udp", "udp", ["64", "32", "8"]),
    "tcp-64": ("tcp", "tcp", ["64", "64"]),
    "room": ("room", "room", ["200", "64"]),
}


class Collector:
    """Takes OTLP over gRPC, answers that all is well and throws it away: as much of HTTP/2 as one client needs. Or
    behaves as its manner says."""

    MANNERS = ("up", "down", "hang", "slow", "garbage")
    DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
    END_STREAM, END_HEADERS, ACK = 1, 4, 1

    def __init__(self, manner):
        self.manner, self.calls, self.bytes = manner, 0, 0
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.endpoint = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        if manner != "down":
            self.listener.listen()
            threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        serve = {"up": self._serve, "hang": self._hang, "slow": self._crawl, "garbage": self._babble}[self.manner]
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def _hang(self, connection):
        with contextlib.suppress(ConnectionError), connection:
            while got := connection.recv(65536):
                self.bytes += len(got)

    def _crawl(self, connection):
        with contextlib.suppress(ConnectionError), connection:
            self.bytes += len(connection.recv(65536))
            for byte in self._frame(self.SETTINGS, 0, 0, b"") * 1000:
                connection.sendall(bytes([byte]))
                time.sleep(1)

    def _babble(self, connection):
        with contextlib.suppress(ConnectionError), connection:
            self.bytes += len(connection.recv(65536))
            connection.sendall(os.urandom(65536))

    def _serve(self, connection):
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as frames:
            frames.read(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
            most = 2**31 - 1
            send = lambda *parts: connection.sendall(b"".join(parts))
            send(self._frame(self.SETTINGS, 0, 0, b"\x00\x04" + most.to_bytes(4, "big")),
                 self._frame(self.WINDOW_UPDATE, 0, 0, (most - 65535).to_bytes(4, "big")))
            while len(head := frames.read(9)) == 9:
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream, body = int.from_bytes(head[5:], "big"), frames.read(length)
                if kind in (self.SETTINGS, self.PING) and not flags & self.ACK:
                    send(self._frame(kind, self.ACK, 0, body if kind == self.PING else b""))
                elif kind in (self.DATA, self.HEADERS):
                    self.bytes += length if kind == self.DATA else 0
                    if kind == self.DATA and length:
                        send(self._frame(self.WINDOW_UPDATE, 0, 0, length.to_bytes(4, "big")))
                    if flags & self.END_STREAM:
                        self.calls += 1
                        send(self._frame(self.HEADERS, self.END_HEADERS, stream,
                                         b"\x88" + self._field(b"content-type", b"application/grpc")),
                             self._frame(self.DATA, 0, stream, bytes(5)),
                             self._frame(self.HEADERS, self.END_HEADERS | self.END_STREAM, stream,
                                         self._field(b"grpc-status", b"0")))

    @staticmethod
    def _frame(kind, flags, stream, body):
        return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body

    @staticmethod
    def _field(name, value):
        return bytes((0, len(name))) + name + bytes((len(value),)) + value


class Service:
    """The service on the first core, and where it says that it listens."""

    def __init__(self, binary, configuration, collector):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SWITCHBOARD_"))}
        if collector:
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
        self.process = subprocess.Popen(["taskset", "-c", "0", binary, "serve", "--config", configuration], env=environment,
                                        stdout=subprocess.PIPE, text=True)
        self.ports = {}
        while len(self.ports) < 5:
            line = self.process.stdout.readline()
            if not line:
                sys.exit("the service did not start")
            if said := re.fullmatch(r"(\w+) +\w+ +(?:tcp|udp) +127\.0\.0\.1:(\d+)\n", line):
                self.ports[said[1]] = int(said[2])

    def memory(self):
        """KiB that were in memory at most."""
        return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text())[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def scraping(port):
    """Reads /metrics every second, the first time at once."""
    over, failed = threading.Event(), []

    def scrape():
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()
            except OSError as error:
                failed.append(error)
            if over.wait(1):
                return

    scraper = threading.Thread(target=scrape)
    scraper.start()
    yield
    over.set()
    scraper.join()
    if failed:
        sys.exit(f"/metrics: {failed[0]}")


def run(options, suite, configuration, collector):
    """Messages a second, and the service's memory in KiB."""
    listener, kind, rest = SUITES[suite]
    with Service(options.binary, configuration, collector) as service:
        command = ["taskset", "-c", "1", options.load, kind, "127.0.0.1", service.ports[listener], options.seconds, *rest]
        with scraping(service.ports["http"]) if collector else contextlib.nullcontext():
            ended = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=options.seconds * 4 + 30)
        said = re.search(r"ops_per_s=(\d+)", ended.stdout)
        if ended.returncode or not said or not int(said[1]):
            sys.exit(f"{suite}: the load failed: {ended.stdout}{ended.stderr}")
        return int(said[1]), service.memory()


@contextlib.contextmanager
def alone(path):
    """While nobody else has the lock."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", type=pathlib.Path, required=True)
    arguments.add_argument("--load", type=pathlib.Path, required=True)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--seconds", type=float, default=2)
    arguments.add_argument("--lock", type=pathlib.Path)
    arguments.add_argument("--collector", choices=[*Collector.MANNERS, "all"], default="up")
    arguments.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    options = arguments.parse_args()
    if unknown := set(options.suites) - set(SUITES):
        arguments.error(f"no suite is called {', '.join(sorted(unknown))}: there are {', '.join(SUITES)}")
    os.sched_setaffinity(0, {1})
    suites, slow = options.suites or [*SUITES], False
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as configuration:
        configuration.write(CONFIGURATION)
        configuration.flush()
        for manner in Collector.MANNERS if options.collector == "all" else [options.collector]:
            slow |= compare(options, suites, configuration.name, Collector(manner))
    return 1 if slow else 0


def compare(options, suites, configuration, collector):
    """Prints what a collector costs each suite; whether that is too much."""
    taken = {suite: {"silent": [], "told": []} for suite in suites}
    for number in range(options.rounds):
        with alone(options.lock) if options.lock else contextlib.nullcontext():
            for suite in suites:
                for how in ("silent", "told") if number % 2 else ("told", "silent"):
                    taken[suite][how].append(run(options, suite, configuration, collector if how == "told" else None))
    if collector.manner == "up" and not collector.calls:
        sys.exit("nothing came to the collector")
    slow, least = False, LEAST if collector.manner == "up" else LEAST_IN_TROUBLE
    for suite, runs in taken.items():
        (silent, lean), (told, fat) = (map(statistics.median, zip(*runs[how])) for how in ("silent", "told"))
        ratio = statistics.median(told / silent for (told, _), (silent, _) in zip(runs["told"], runs["silent"]))
        slow |= ratio < least
        print(f"{collector.manner:7} {suite:7} silent={silent:.0f}/s told={told:.0f}/s ratio={ratio:.3f} "
              f"memory={(fat - lean) / 1024:+.1f}MiB")
    print(f"{collector.manner:7} collector: {collector.calls} exports answered, {collector.bytes} bytes in all", flush=True)
    return slow


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            sys.exit(2)
        raise
