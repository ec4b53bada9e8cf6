#!/usr/bin/env python3
"""What telemetry costs: the work done with everything told, against the work done with nothing told.

    telemetry.py --binary target/release/switchboard --load PATH [--collector MANNER] [--rounds 11] [--seconds 2] [SUITE ...]

Suites: udp udp-large tcp tcp-64 shell shell-8 shell-bulk room. A round runs each suite twice, once with telemetry and once
without, and the order of the two changes from round to round, so that what drifts meets both. Told: spans and metrics go
to a collector on loopback, sampled as by default, and /metrics is read every second. The collector's manner: `up` takes
all; `down` is not there; `hang` accepts and never answers; `slow` answers a byte a second; `garbage` answers what is no
HTTP. Prints of each suite the medians, and the medians of the rounds' ratios told/silent: of the throughput, and of the
processor time that the service takes for an operation. PATH is a load generator that takes `udp|tcp|shell|room HOST PORT
SECONDS ... PID` and prints `ops_per_s=N` and, of the service PID, `server_cpu_ns_per_op=N`. The service has the first
core, all else the second.

Exit 0 when every such ratio is within 3 % (2 % of the throughput for a collector that is not up), 1 when one is not, 2
when something did not run. Needs Linux and two cores. The same thing twice differs by 2 %: take 11 rounds or more.
"""
import argparse, contextlib, os, pathlib, re, socket, statistics, subprocess, sys, tempfile, threading, time, urllib.request

# How much of the throughput must be left, by the collector's manner, and what an operation may cost at most.
LEAST = {"up": 0.97, "down": 0.98, "hang": 0.98, "slow": 0.98, "garbage": 0.98}
MOST_CPU = 1.03
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
[listeners.shell]
protocol = "shell"
bind = "127.0.0.1:0"
policy = "any"
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
    "udp-large": ("udp", "udp", ["1400", "32", "8"]),
    "tcp": ("tcp", "tcp", ["64", "1"]),
    "tcp-64": ("tcp", "tcp", ["64", "64"]),
    "shell": ("shell", "shell", ["1", "echo hi"]),
    "shell-8": ("shell", "shell", ["8", "echo hi"]),
    "shell-bulk": ("shell", "shell", ["1", "head -c 10000000 /dev/zero"]),
    "room": ("room", "room", ["200", "64"]),
}


class Collector:
    """Takes OTLP over gRPC, answers that all is well and throws it away: as much of HTTP/2 as one client needs.
    Of another manner it does not."""

    DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
    END_STREAM, END_HEADERS, ACK = 1, 4, 1

    def __init__(self, manner):
        self.calls = self.bytes = self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        self._serve = {"up": self._take, "hang": self._hang, "slow": self._dribble, "garbage": self._babble}.get(manner)
        if manner == "down":
            self.listener.close()
            return
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            connection, _ = self.listener.accept()
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _hang(self, connection):
        with contextlib.suppress(ConnectionError), connection:
            while connection.recv(1 << 16):
                pass

    def _dribble(self, connection):
        with contextlib.suppress(OSError), connection:
            while True:
                connection.sendall(b"\0")
                time.sleep(1)

    def _babble(self, connection):
        with contextlib.suppress(OSError), connection:
            while connection.recv(1 << 16):
                connection.sendall(os.urandom(1 << 16))

    def _take(self, connection):
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
        while len(self.ports) < 6:
            line = self.process.stdout.readline()
            if not line:
                sys.exit("the service did not start")
            if said := re.fullmatch(r"(\w+) +\w+ +(?:tcp|udp) +127\.0\.0\.1:(\d+)\n", line):
                self.ports[said[1]] = int(said[2])

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
    """Operations a second, and nanoseconds of the service's processor time for each."""
    listener, kind, rest = SUITES[suite]
    with Service(options.binary, configuration, collector) as service:
        command = ["taskset", "-c", "1", options.load, kind, "127.0.0.1", service.ports[listener], options.seconds, *rest,
                   service.process.pid]
        with scraping(service.ports["http"]) if collector else contextlib.nullcontext():
            ended = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=options.seconds * 4 + 30)
        said = re.search(r"ops_per_s=(\d+)", ended.stdout)
        if ended.returncode or not said or not int(said[1]):
            sys.exit(f"{suite}: the load failed: {ended.stdout}{ended.stderr}")
        cost = re.search(r"server_cpu_ns_per_op=(\d+)", ended.stdout)
        return int(said[1]), int(cost[1]) if cost else 0


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", type=pathlib.Path, required=True)
    arguments.add_argument("--load", type=pathlib.Path, required=True)
    arguments.add_argument("--collector", choices=LEAST, default="up")
    arguments.add_argument("--rounds", type=int, default=11)
    arguments.add_argument("--seconds", type=float, default=2)
    arguments.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    options = arguments.parse_args()
    if unknown := set(options.suites) - set(SUITES):
        arguments.error(f"no suite is called {', '.join(sorted(unknown))}: there are {', '.join(SUITES)}")
    os.sched_setaffinity(0, {1})
    suites, collector = options.suites or [*SUITES], Collector(options.collector)
    taken = {suite: {"silent": [], "told": []} for suite in suites}
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as configuration:
        configuration.write(CONFIGURATION)
        configuration.flush()
        for number in range(options.rounds):
            for suite in suites:
                for how in ("silent", "told") if number % 2 else ("told", "silent"):
                    taken[suite][how].append(run(options, suite, configuration.name, collector if how == "told" else None))
    if not (collector.calls if options.collector == "up" else collector.connections or options.collector == "down"):
        sys.exit("nothing came to the collector")
    costly = False
    for suite, taken in taken.items():
        pairs = list(zip(taken["told"], taken["silent"]))
        rate, cost = (statistics.median(told[what] / max(1, silent[what]) for told, silent in pairs) for what in (0, 1))
        costly |= rate < LEAST[options.collector] or cost > MOST_CPU
        silent, told = (statistics.median(rates for rates, _ in taken[how]) for how in ("silent", "told"))
        print(f"{suite:10} silent={silent:.0f}/s told={told:.0f}/s ratio={rate:.3f} cpu={cost:.3f}", flush=True)
    print(f"collector: {collector.connections} connections, {collector.calls} exports of {collector.bytes} bytes in all")
    return 1 if costly else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            sys.exit(2)
        raise
