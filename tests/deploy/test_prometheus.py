"""A real Prometheus scrapes the service under traffic, evaluates the rules, and answers what the dashboard asks."""
import contextlib
import json
import math
import pathlib
import re
import subprocess
import tempfile
import threading
import unittest
import urllib.error
import urllib.parse
import urllib.request

from tools import DEPLOY, packages, run, tool

packages()
import yaml  # noqa: E402
from harness import PATIENCE, UNATTENDED, Service, connect, datagrams, eventually, receive_all, reset  # noqa: E402

# What nothing in a healthy run can fill: each is of a fault that the traffic below does not make.
QUIET = {"Accepts that failed", "Calls that found no room"}
# Names of the OpenTelemetry conventions, and one after their manner, which promtool would keep for histograms.
COUNTS = {"process_thread_count", "process_unix_file_descriptor_count", "switchboard_config_drift_count"}
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE) as answer:
        return answer.read().decode()


class Prometheus:
    """On a port that the kernel chooses, which its log tells. Use with `with`."""

    def __init__(self, target):
        self.program = tool("prometheus/usr/bin/prometheus")
        self.config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())
        self.config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "250ms")
        self.config["rule_files"] = [str(DEPLOY / "prometheus/rules.yaml")]
        self.config["scrape_configs"] = self.config["scrape_configs"][:1]
        self.config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / "prometheus.yaml").write_text(yaml.safe_dump(self.config))
            self.process = subprocess.Popen(
                [self.program, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
                 "--web.listen-address=127.0.0.1:0", "--enable-feature=exemplar-storage"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            stack.callback(self.stop)
            self.said, self.port, self.told = [], None, threading.Event()
            self.reader = threading.Thread(target=self.read, daemon=True)
            self.reader.start()
            if not self.told.wait(PATIENCE) or self.port is None:
                raise AssertionError(f"prometheus did not say where it listens: {''.join(self.said)}")
            self.stack = stack.pop_all()
        return self

    def read(self):
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r'msg="Listening on" address=127\.0\.0\.1:(\d+)', line):
                self.port = int(found[1])
                self.told.set()
        self.told.set()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(PATIENCE)
        self.process.stderr.close()

    def __exit__(self, *_):
        self.stack.close()

    def ask(self, what, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            answer = json.loads(get(url))
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        return answer["data"]

    def query(self, expression):
        """The series of a query, as labels and numbers; what is not a number is no answer."""
        result = self.ask("query", query=expression)["result"]
        return [(s["metric"], float(s["value"][1])) for s in result if not math.isnan(float(s["value"][1]))]

    def after_scrapes(self, count):
        """Waits for scrapes that began from now on."""
        for _ in range(count):
            before = self.query('timestamp(up{job="switchboard"})')
            eventually(lambda: self.query('timestamp(up{job="switchboard"})') != before, "another scrape")


def filled(expression):
    """What Grafana puts in for its variables, all of them chosen; but a label that is not there is not matched."""
    expression = re.sub(r"\$(job|instance|listener)\b", ".+", expression)
    return expression.replace("$__rate_interval", "1m")


def dashboard():
    return json.loads((DEPLOY / "grafana/switchboard.json").read_text())


class Scraped(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        tool("prometheus/usr/bin/prometheus")
        shell = {"protocol": "shell", "framing": "line"}
        cls.service = Service(
            ack={},
            spare={},
            narrow={"limits": {"max_sessions": 1}},
            shell=shell | {"policy": "any", "command_timeout": "200ms"},
            programs=shell | {"policy": "programs", "programs": ["echo"]},
            uppercase={"protocol": "uppercase"},
            chat={"protocol": "chat"},
            qq={"protocol": "chat", "transport": "udp"},
            alone={"protocol": "chat", "unattended_after": "100ms"},
        )
        # Nobody takes what is sent there, and that may not matter; but what is sampled has traces.
        cls.service.config["telemetry"] |= {"otlp_endpoint": "http://127.0.0.1:1", "sample_messages": 1.0, "sample_tcp_rtt": 1.0}
        cls.service.during(cls)
        cls.prometheus = Prometheus(f"127.0.0.1:{cls.service.port('http')}")
        cls.addClassCleanup(cls.prometheus.__enter__().__exit__, None, None, None)
        # A rate needs what was before.
        for _ in range(3):
            cls.traffic()
            cls.prometheus.after_scrapes(2)

    @classmethod
    def traffic(cls):
        service = cls.service
        for _ in range(20):
            with service.connect("ack") as peer:
                peer.sendall(b"hello")
                peer.recv(64)
        with service.connect("narrow") as first:
            first.sendall(b"x")
            first.recv(64)
            with service.connect("narrow") as second, contextlib.suppress(ConnectionResetError):
                receive_all(second)
        reset(service.connect("ack"))
        for listener, command in (("shell", b"true"), ("shell", b"exit 1"), ("shell", b"sleep 5"), ("programs", b"id")):
            with service.connect(listener) as peer:
                peer.sendall(command + b"\n")
                peer.recv(4096)
        with datagrams(service.port("uppercase")) as peer:
            peer.send(b"hello")
            peer.recv(64)
            peer.send(b"\xff")
        with service.connect("alone") as peer:
            peer.sendall(b"is anybody there?")
            assert peer.recv(64).decode() == UNATTENDED
        peer = service.connect("chat")
        peer.sendall(b"hello?")
        service.reply(service.waiting("chat"), "hello")
        assert peer.recv(64) == b"hello"
        peer.sendall(b"and?")
        service.waiting("chat")
        # Leaves without an answer; one that only had nothing more to say would still be answered.
        reset(peer)
        with datagrams(service.port("qq")) as peer:
            peer.send(b"hello?")
            service.waiting("qq")
        service.cli("listener", "get", "nobody")
        service.cli("config", "reload")
        service.ask("listener", "start", "spare")
        service.ask("listener", "drain", "spare")

    def test_what_is_scraped_is_as_promtool_would_have_it(self):
        text = get(f"http://127.0.0.1:{self.service.port('http')}/metrics")
        done = subprocess.run(
            [tool("prometheus/usr/bin/promtool"), "check", "metrics"], input=text, capture_output=True, text=True,
            timeout=60,
        )
        said = {*(done.stdout + done.stderr).splitlines()}
        self.assertEqual(said, {f'{n} non-histogram and non-summary metrics should not have "_count" suffix' for n in COUNTS})

    def test_the_whole_scrape_is_taken_as_openmetrics(self):
        targets = self.prometheus.ask("targets")["activeTargets"]
        self.assertEqual([(t["health"], t["lastError"]) for t in targets], [("up", "")])
        text = get(f"http://127.0.0.1:{self.service.port('http')}/metrics", **OPENMETRICS)
        self.assertTrue(text.endswith("# EOF\n"), text[-100:])
        types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
        known = {*self.prometheus.ask("label/__name__/values")}
        for name, kind in types.items():
            suffix = {"counter": "_total", "histogram": "_bucket", "info": "_info"}.get(kind, "")
            if re.search(rf"^{name}{suffix}[ {{]", text, re.MULTILINE):
                self.assertIn(name + suffix, known)

    def test_rules_are_evaluated_and_no_alert_wakes_anybody_for_nothing(self):
        def evaluated():
            rules = [r for g in self.prometheus.ask("rules")["groups"] for r in g["rules"]]
            return rules if all(r["health"] != "unknown" for r in rules) else None

        rules = eventually(evaluated, "each rule is evaluated")
        self.assertEqual({r["health"] for r in rules}, {"ok"}, [r for r in rules if r["health"] != "ok"])
        waking = [r["name"] for r in rules if r["type"] == "alerting" and r["state"] == "firing"
                  and r["labels"]["severity"] == "critical"]
        self.assertEqual(waking, [])
        for record in (r["name"] for r in rules if r["type"] == "recording"):
            if "errors" not in record and "failures" not in record:
                self.assertTrue(self.prometheus.query(record), record)

    def test_each_query_of_the_dashboard_is_answered(self):
        empty, unnamed = [], []
        for panel in dashboard()["panels"]:
            for target in panel.get("targets", []):
                answer = self.prometheus.query(filled(target["expr"]))
                if panel["title"] in QUIET:
                    continue
                if not answer:
                    empty.append((panel["title"], target["expr"]))
                # What has no error has no such label.
                labels = {*re.findall(r"{{(\w+)}}", target["legendFormat"])} - {"error_type"}
                labels -= {label for series, _ in answer for label in series}
                if labels:
                    unnamed.append((panel["title"], labels))
        self.assertEqual((empty, unnamed), ([], []))

    def test_annotations_and_variables_are_answered(self):
        board = dashboard()
        for annotation in board["annotations"]["list"]:
            self.prometheus.query(filled(annotation["expr"]))
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
                values = self.prometheus.ask(f"label/{label}/values", **{"match[]": filled(metric)})
                self.assertTrue(values, variable["name"])

    def test_slow_points_lead_to_their_traces(self):
        for metric in ("switchboard_session_setup_duration_seconds", "switchboard_command_duration_seconds"):
            found = self.prometheus.ask("query_exemplars", query=f"{metric}_bucket", start=0, end=4102444800)
            traces = [e["labels"]["trace_id"] for s in found for e in s["exemplars"]]
            self.assertTrue(traces, metric)
            for trace in traces:
                self.assertRegex(trace, "^[0-9a-f]{32}$")


if __name__ == "__main__":
    unittest.main()
