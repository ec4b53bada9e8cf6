#!/usr/bin/env python3
"""tuning.py [--binary PATH] [SUITE...]: what the settings of a host buy, measured on this one.

Suites: receive (room for datagrams), backlog (a burst of connections), descriptors (sessions that they carry), idle
(memory of a session), cores (one or two). It changes no setting of the host: what a smaller limit gives is set on the
service's own sockets, or for its process alone. The service runs on the first core and the load on the second. Needs
Linux, and two cores to say anything of them; as root, or with ptrace of one's children, for `receive`.
"""
import argparse
import array
import ctypes
import os
import pathlib
import re
import resource
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """
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
[listeners.tcp.limits]
max_sessions = 1000000
max_sessions_per_source = 1000000
accept_backlog = {backlog}
"""
UDP_SEGMENT, UDP_GRO, SYS_PIDFD_GETFD = 103, 104, 438
RMEM = 212_992  # net.core.rmem_max where nobody has set it


class Service:
    """The service with its own configuration, on `cores`, as if `ulimit -n` were `descriptors`."""

    def __init__(self, binary, cores=(0,), descriptors=None, backlog=1024):
        self.folder = tempfile.TemporaryDirectory()
        config = pathlib.Path(self.folder.name, "tuning.toml")
        config.write_text(CONFIG.format(backlog=backlog))

        def become():
            os.sched_setaffinity(0, cores)
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        command = [binary, "serve", "--config", config]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=become)
        self.ports = {}
        while len(self.ports) < 2:
            line = self.process.stdout.readline()
            if not line:
                sys.exit("tuning.py: the service did not start")
            if found := re.match(r"(udp|tcp) .* 127\.0\.0\.1:(\d+)$", line):
                self.ports[found[1]] = int(found[2])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.communicate()
        self.folder.cleanup()

    def address(self, name):
        return "127.0.0.1", self.ports[name]

    def resident(self):
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def cpu(self):
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks)

    def udp_sockets(self):
        """Its own UDP sockets, to set options of."""
        found = []
        pidfd = os.pidfd_open(self.process.pid)
        for entry in os.scandir(f"/proc/{self.process.pid}/fd"):
            if not os.readlink(entry.path).startswith("socket:"):
                continue
            copy = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, pidfd, int(entry.name), 0)
            if copy < 0:
                sys.exit(f"tuning.py: receive: {os.strerror(ctypes.get_errno())}; run it as root")
            sock = socket.socket(fileno=copy)
            try:
                if sock.type == socket.SOCK_DGRAM and sock.getsockname()[1] == self.ports["udp"]:
                    found.append(sock)
            except (OSError, IndexError, TypeError):
                pass
        os.close(pidfd)
        return found


def answers(sock):
    """Datagrams that come until none has for half a second."""
    count = 0
    sock.settimeout(0.5)
    while True:
        try:
            sock.recv(65536)
            count += 1
        except TimeoutError:
            return count


def receive(binary):
    """A process that is kept from its core answers afterwards what its sockets had room for."""
    sent = 20_000
    for size in (64, 1_400):
        for limit in (RMEM, None):
            with Service(binary) as service:
                sockets = service.udp_sockets()
                for sock in sockets if limit else ():
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limit)
                room = sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
                peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                peer.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE: its own room is not the question
                peer.connect(service.address("udp"))
                service.process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, service.process.pid, os.WSTOPPED | os.WNOWAIT)
                for _ in range(sent):
                    peer.send(b"x" * size)
                service.process.send_signal(signal.SIGCONT)
                print(f"receive      {size:5} B  room {room:9,} B  kept {answers(peer):6,} of {sent:,}")


def backlog(binary):
    """5,000 connections at once; a SYN that finds the queue full is dropped, and comes again a second later."""

    def dropped():
        rows = [line.split() for line in open("/proc/net/netstat") if line.startswith("TcpExt")]
        return int(dict(zip(*rows))["ListenDrops"])

    most = int(pathlib.Path("/proc/sys/net/core/somaxconn").read_text())
    for queue in (128, 1_024, 4_096):
        with Service(binary, backlog=queue) as service:
            before, began, slowest = dropped(), time.monotonic(), 0
            waiting = selectors.DefaultSelector()
            for _ in range(5_000):
                peer = socket.socket()
                peer.setblocking(False)
                peer.connect_ex(service.address("tcp"))
                waiting.register(peer, selectors.EVENT_WRITE, time.monotonic())
            while waiting.get_map():
                for key, _ in waiting.select():
                    slowest = max(slowest, time.monotonic() - key.data)
                    waiting.unregister(key.fileobj)
                    key.fileobj.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, array.array("i", (1, 0)))
                    key.fileobj.close()
            took = time.monotonic() - began
            print(f"backlog      {queue:5} (somaxconn {most})  dropped {dropped() - before:5,}"
                  f"  slowest {slowest * 1e3:6.0f} ms  all {took * 1e3:6.0f} ms")


def opened(address, count):
    peers = []
    for _ in range(count):
        peer = socket.create_connection(address)
        peers.append(peer)
    return peers


def descriptors(binary):
    """Sessions that a hard limit carries: whoever is refused is closed."""
    for limit in (256, 1_024, 4_096, 16_384):
        with Service(binary, descriptors=limit) as service:
            peers = opened(service.address("tcp"), limit + 64)
            time.sleep(0.5)
            kept = 0
            for peer in peers:
                peer.setblocking(False)
                try:
                    peer.recv(1, socket.MSG_PEEK)
                except BlockingIOError:
                    kept += 1
                except ConnectionError:
                    pass
                peer.close()
            print(f"descriptors  {limit:6,}  sessions {kept:6,}")


def idle(binary):
    """What a session that says nothing costs the process, and what its two ends cost the kernel."""

    def slab():
        return int(re.search(r"Slab:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) << 10

    count = 15_000
    with Service(binary) as service:
        before = service.resident(), slab()
        peers = opened(service.address("tcp"), count)
        time.sleep(1)
        process, kernel = service.resident() - before[0], slab() - before[1]
        print(f"idle         {count:,} sessions  {process / count:6,.0f} B each  kernel {kernel / count / 2:6,.0f} B each")
        for peer in peers:
            peer.close()


def flood(service, seconds):
    """Upper-case round trips of 64 bytes over 8 flows, 64 datagrams a call: Linux cuts and joins them."""
    message = b"x" * 64 * 64
    waiting, got = selectors.DefaultSelector(), 0
    for _ in range(8):
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        peer.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 64)
        peer.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        peer.connect(service.address("udp"))
        peer.setblocking(False)
        waiting.register(peer, selectors.EVENT_READ, [0])
        peer.send(message)
    cpu, began = service.cpu(), time.monotonic()
    end = began + seconds
    while time.monotonic() < end:
        for key, _ in waiting.select(1):
            key.data[0] += len(key.fileobj.recv(65536)) // 64
            got_now, key.data[0] = divmod(key.data[0], 64)
            got += 64 * got_now
            for _ in range(got_now):
                key.fileobj.send(message)
    took = time.monotonic() - began
    return got / took, (service.cpu() - cpu) / max(got, 1)


def cores(binary):
    """The same load, always on the second core, beside a service on the first, and on both."""
    rounds = {(0,): [], (0, 1): []}
    for _ in range(5):
        for where, seen in rounds.items():
            with Service(binary, cores=where) as service:
                seen.append(flood(service, 2))
    for where, seen in rounds.items():
        seen.sort()
        rate, cpu = seen[len(seen) // 2]
        print(f"cores        {len(where)}  {rate:9,.0f} datagrams/s  {cpu:5,.0f} ns of CPU each")


SUITES = {suite.__name__: suite for suite in (receive, backlog, descriptors, idle, cores)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "target/release/switchboard")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=" ".join(SUITES))
    asked = parser.parse_args()
    if unknown := set(asked.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {' '.join(SUITES)}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, (max(os.sched_getaffinity(0)),))
    for suite in asked.suites or SUITES:
        SUITES[suite](asked.binary)


if __name__ == "__main__":
    main()
