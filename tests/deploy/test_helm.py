"""The chart: rendered for several sets of values, each manifest held against its schema, and against the others."""
import copy
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from tools import DEPLOY, packages, run, tool

packages()
import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402
from cloudcoil.models.prometheus_operator import v1 as operator  # noqa: E402
from harness import Service, binary, environment, eventually, switchboard, toml  # noqa: E402

CHART = DEPLOY / "helm/switchboard"
# The oldest that Chart.yaml takes, and the newest that there is a schema for.
VERSIONS = ("1.27", kubernetes_validate.latest_version())
CASES = {
    "defaults": {},
    "everything": {
        "replicas": 3,
        "image": {"shell": True, "tag": "0.1.0"},
        "config": {
            "shutdown": {"grace": "2m"},
            "listeners": {
                "tools": {
                    "protocol": "shell", "policy": "any", "bind": "0.0.0.0:8090", "allow_cleartext": True,
                    "limits": {"allow_cidrs": ["10.0.0.0/8"], "max_sessions": 1000000},
                },
                "inside": {"protocol": "ack", "bind": "127.0.0.1:8070"},
                "within": {"protocol": "ack", "bind": "localhost:8071"},
            },
        },
        "otlp": {"endpoint": "http://collector.observability:4317"},
        "env": [{"name": "OTEL_METRICS_EXPORTER", "value": "none"}],
        "services": {
            "tcp": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"], "annotations": {"a": "b"}},
            "udp": {"type": "NodePort"},
        },
        "sysctls": [{"name": "net.core.somaxconn", "value": "4096"}],
        "priorityClassName": "high",
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "networkPolicy": {
            "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "egress": [{"ports": [{"port": 4317, "protocol": "TCP"}]}],
        },
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "grafanaDashboard": {"enabled": True},
    },
    "bare": {
        "config": {"listeners": {"ack": None, "chat": None, "qq": None}},
        "persistence": {"enabled": False},
        "serviceAccount": {"create": False},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
}


def helm(*command, **values):
    with tempfile.TemporaryDirectory() as home:
        file = pathlib.Path(home, "values.yaml")
        file.write_text(json.dumps(values))
        return subprocess.run(
            [tool("helm/helm"), *command, CHART, "--values", file],
            capture_output=True, text=True, timeout=60, env=os.environ | {"HOME": home},
        )


def render(values):
    done = helm("template", "sb", **copy.deepcopy(values))
    if done.returncode:
        raise AssertionError(done.stderr)
    return [m for m in yaml.safe_load_all(done.stdout) if m]


def ours_only(given, known, path=""):
    """What is given and the schema does not know."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key not in known:
                yield f"{path}.{key}"
            else:
                yield from ours_only(value, known[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(known, list):
        for index, (one, other) in enumerate(zip(given, known)):
            yield from ours_only(one, other, f"{path}[{index}]")


class Chart(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        tool("helm/helm")
        cls.rendered = {name: render(values) for name, values in CASES.items()}

    def each(self, kind):
        return [(case, m) for case, manifests in self.rendered.items() for m in manifests if m["kind"] == kind]

    def pod(self, case):
        return next(m for m in self.rendered[case] if m["kind"] == "StatefulSet")["spec"]["template"]

    def test_helm_lints_it(self):
        for name, values in CASES.items():
            with self.subTest(name):
                done = helm("lint", "--strict", **copy.deepcopy(values))
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_manifests_are_what_their_schemas_say(self):
        for name, manifests in self.rendered.items():
            for manifest in manifests:
                with self.subTest(name, kind=manifest["kind"]):
                    if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
                        model = getattr(operator, manifest["kind"]).model_validate(manifest)
                        known = json.loads(model.model_dump_json(by_alias=True, exclude_none=True))
                        self.assertEqual([*ours_only(manifest, known)], [])
                        continue
                    for version in VERSIONS:
                        kubernetes_validate.validate(manifest, version, strict=True)

    def test_a_manifest_that_is_wrong_is_told(self):
        service = self.each("Service")[0][1]
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(service | {"sepc": {}}, VERSIONS[-1], strict=True)
        monitor = self.each("ServiceMonitor")[0][1]
        wrong = copy.deepcopy(monitor)
        wrong["spec"]["endpoints"][0]["intervall"] = "1s"
        known = json.loads(operator.ServiceMonitor.model_validate(wrong).model_dump_json(by_alias=True, exclude_none=True))
        self.assertEqual([*ours_only(wrong, known)], [".spec.endpoints[0].intervall"])

    def test_tcp_and_udp_have_services_of_their_own_that_lead_to_ports_of_the_pod(self):
        for case, service in self.each("Service"):
            pod = self.pod(case)
            ports = {p["name"]: p for c in pod["spec"]["containers"] for p in c["ports"]}
            self.assertEqual(len({p["protocol"] for p in service["spec"]["ports"]}), 1)
            self.assertLessEqual(service["spec"]["selector"].items(), pod["metadata"]["labels"].items())
            for port in service["spec"]["ports"]:
                self.assertEqual(ports[port["targetPort"]]["protocol"], port["protocol"])
                self.assertEqual(ports[port["targetPort"]]["containerPort"], port["port"])
        services = {s["metadata"]["name"]: s for c, s in self.each("Service") if c == "everything"}
        self.assertEqual([p["port"] for p in services["sb-switchboard-tcp"]["spec"]["ports"]], [8080, 8081, 8090])
        self.assertEqual([p["port"] for p in services["sb-switchboard-udp"]["spec"]["ports"]], [8081, 8080])
        # No TCP listener, no Service for one; loopback has no port in any.
        self.assertEqual({s["metadata"]["name"] for c, s in self.each("Service") if c == "bare"},
                         {"sb-switchboard-pods", "sb-switchboard-udp"})

    def test_a_pod_may_nothing_that_it_does_not_need(self):
        for case, pod in [(c, m["spec"]) for c, m in self.each("Pod")] + [
            (c, m["spec"]["template"]["spec"]) for c, m in self.each("StatefulSet")
        ]:
            with self.subTest(case):
                self.assertIs(pod["automountServiceAccountToken"], False)
                self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                for container in pod["containers"]:
                    self.assertEqual(container["securityContext"], {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    })
                    self.assertNotIn(50051, [p["containerPort"] for p in container.get("ports", [])])

    def test_a_pod_has_the_time_that_its_sessions_have(self):
        grace = {c: m["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] for c, m in self.each("StatefulSet")}
        self.assertEqual(grace, {"defaults": 40, "everything": 130, "bare": 40})

    def test_the_program_takes_the_configuration_with_the_variables_of_the_pod(self):
        for case, config in self.each("ConfigMap"):
            if "switchboard.yaml" not in config["data"]:
                continue
            container = self.pod(case)["spec"]["containers"][0]
            mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
            file = pathlib.PurePath(container["args"][2])
            self.assertEqual(str(file.parent), mounts["config"])
            variables = {e["name"]: e["value"] for e in container["env"] if "value" in e}
            with tempfile.TemporaryDirectory() as folder:
                (pathlib.Path(folder) / file.name).write_text(config["data"][file.name])
                run(binary(), "check", "--config", pathlib.Path(folder) / file.name,
                    env=environment() | variables | {"SWITCHBOARD__NODE__NAME": "sb-switchboard-0"})

    def test_a_changed_config_map_is_taken_over_as_the_kubelet_brings_it(self):
        # A folder for each version, and a link to it that is replaced; the file that the service reads is a link through it.
        with Service(ack={"reply": "first"}) as service:
            folder = service.folder

            def bring(version, reply):
                (folder / version).mkdir()
                service.config["listeners"]["ack"]["reply"] = reply
                (folder / version / "switchboard.toml").write_text(toml([], service.config))
                (folder / "..data_tmp").symlink_to(version)
                os.replace(folder / "..data_tmp", folder / "..data")

            def reply():
                with service.connect("ack") as peer:
                    peer.sendall(b"x")
                    return peer.recv(64)

            bring("..1", "first")
            (folder / "link").symlink_to("..data/switchboard.toml")
            os.replace(folder / "link", folder / "switchboard.toml")
            self.assertEqual(reply(), b"first")
            for version, said in (("..2", "second"), ("..3", "third")):
                bring(version, said)
                eventually(lambda: reply() == said.encode(), f"{version} is taken over")

    def test_what_helm_test_runs_tells_a_listener_from_none(self):
        pods = {c: m["spec"]["containers"][0]["args"] for c, m in self.each("Pod")}
        self.assertEqual(pods["defaults"], ["connect", "ack", "sb-switchboard-tcp:8080"])
        with Service(chat={"protocol": "chat"}) as service:
            port = service.port("chat")
            self.assertEqual(switchboard(*pods["defaults"][:2], f"localhost:{port}").returncode, 0)
        self.assertNotEqual(switchboard(*pods["defaults"][:2], f"localhost:{port}").returncode, 0)

    def test_values_that_cannot_be_are_refused_with_what_would_be_right(self):
        for values, said in (
            ({"config": {"listeners": {"ack": {"protocol": "ack", "bind": "0.0.0.0"}}}}, "/config/listeners/ack/bind"),
            ({"config": {"listeners": {"ack": {"protocol": "ack", "bind": "0.0.0.0:0"}}}}, "0.0.0.0:0 has no port"),
            ({"config": {"listeners": {"ack": {"protocol": "ack", "bind": ":8080"}}}}, "/config/listeners/ack/bind"),
            ({"config": {"listeners": {"ack": {"protocol": "ack", "bind": "[::]:9464"}}}}, "[::]:9464 needs another port"),
            ({"config": {"http": {"address": "0.0.0.0:1"}}}, "/config/http"),
            ({"config": {"grpc": {"address": "0.0.0.0:1"}}}, "/config/grpc"),
            ({"config": {"shutdown": {"grace": "1m 30s"}}}, "write it as 90s, 5m or 1h"),
            ({"config": {"shutdown": {"grace": 30}}}, "/config/shutdown/grace"),
            ({"replica": 2}, "'replica' not allowed"),
            ({"services": {"udp": {"type": "Ingress"}}}, "/services/udp/type"),
        ):
            with self.subTest(said):
                done = helm("template", "sb", **values)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(said, done.stderr)

    def test_telemetry_may_go_where_it_is_sent_and_nowhere_else(self):
        given = [{"ports": [{"port": 1, "protocol": "TCP"}]}]
        for values, ports in (
            ({}, []),
            ({"otlp": {"endpoint": "http://collector.observability:4317"}}, [53, 53, 4317]),
            ({"otlp": {"endpoint": "https://collector/v1"}}, [53, 53, 443]),
            ({"config": {"telemetry": {"otlp_endpoint": "http://[fd00::1]:4318/"}}}, [53, 53, 4318]),
            ({"otlp": {"endpoint": "http://collector:4317"}, "networkPolicy": {"egress": given}}, [53, 53, 1]),
        ):
            with self.subTest(values):
                policy = next(m for m in render(values) if m["kind"] == "NetworkPolicy")
                self.assertEqual([p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]], ports)

    def test_the_rules_find_the_job_whatever_the_chart_is_called(self):
        manifests = render({"nameOverride": "desk", "fullnameOverride": "desk", "serviceMonitor": {"enabled": True}})
        monitor = next(m["spec"] for m in manifests if m["kind"] == "ServiceMonitor")
        wanted = monitor["selector"]["matchLabels"].items()
        chosen = [m for m in manifests if m["kind"] == "Service" and wanted <= m["metadata"]["labels"].items()]
        self.assertEqual([m["metadata"]["labels"][monitor["jobLabel"]] for m in chosen], ["switchboard"])

    def test_its_rules_and_dashboard_are_the_ones_that_are_tested(self):
        rule = self.each("PrometheusRule")[0][1]
        self.assertEqual(rule["spec"], yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text()))
        boards = [m for _, m in self.each("ConfigMap") if "switchboard.json" in m["data"]]
        self.assertEqual(len(boards), 1)
        self.assertEqual(json.loads(boards[0]["data"]["switchboard.json"]),
                         json.loads((DEPLOY / "grafana/switchboard.json").read_text()))


if __name__ == "__main__":
    unittest.main()
