"""The images and the compose file: linted, read by their specification, and built and run where an engine is."""
import json
import re
import subprocess
import unittest

from tools import DEPLOY, REPOSITORY, engine, missing, packages, run, tool

packages()
import compose_spec  # noqa: E402
import yaml  # noqa: E402
from harness import eventually, switchboard  # noqa: E402

DOCKERFILE = DEPLOY / "docker/Dockerfile"


class Images(unittest.TestCase):
    def test_hadolint_has_nothing_to_say(self):
        run(tool("deploy/bin/hadolint"), "--failure-threshold", "style", DOCKERFILE)

    def test_the_configuration_inside_is_valid(self):
        files = [f for name in ("switchboard", "shell") for f in ("--config", DEPLOY / f"docker/{name}.toml")]
        done = switchboard("check", *files)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_nobody_is_root_and_nothing_is_started_by_a_shell(self):
        stages = re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.MULTILINE)[2:4]
        for stage in stages:
            self.assertIn("\nUSER 65532:65532\n", stage)
            for line in re.findall(r"^(?:ENTRYPOINT|CMD|\s+CMD) .*$", stage, re.MULTILINE):
                self.assertRegex(line.strip(), r"^\w+ \[")

    def test_a_build_sees_what_it_copies(self):
        allowed = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE.read_text(), re.MULTILINE):
            for source in line.split()[:-1]:
                self.assertTrue((REPOSITORY / source).exists(), source)
                pattern = re.sub(r"[^/]+\.toml$", "*.toml", source) if "/docker/" in source else source
                self.assertIn(f"!{pattern}", allowed)

    def test_a_build_copies_what_it_compiles(self):
        stage = DOCKERFILE.read_text().split("\nFROM ")[1]
        copied = {s for line in re.findall(r"^COPY (.*)$", stage, re.MULTILINE) for s in line.split()[:-1]}
        files = [*(REPOSITORY / "src").rglob("*.rs"), REPOSITORY / "build.rs"]
        inside = [(f.parent / name).resolve() for f in files
                  for name in re.findall(r'include(?:_str|_bytes)?!\(\s*"([^"]+)"', f.read_text())]
        self.assertTrue(inside)
        for file in inside:
            path = file.relative_to(REPOSITORY)
            self.assertTrue({str(p) for p in (path, *path.parents)} & copied, f"{path} is not copied")

    def test_both_images_build_and_serve(self):
        docker = engine()
        for target in ("final", "shell"):
            with self.subTest(target):
                tag = f"switchboard-test:{target}"
                subprocess.run(
                    [docker, "build", "-f", DOCKERFILE, "--target", target, "-t", tag, REPOSITORY],
                    check=True, timeout=1800,
                )
                container = run(
                    docker, "run", "--detach", "--read-only", "--cap-drop=ALL", "--tmpfs", "/tmp",
                    "--tmpfs", "/run/switchboard:uid=65532,mode=0700", tag,
                ).strip()
                self.addCleanup(run, docker, "rm", "--force", "--volumes", container)
                eventually(
                    lambda: "healthy" == run(docker, "inspect", "-f", "{{.State.Health.Status}}", container).strip(),
                    f"{target} is healthy", 60,
                )


class Compose(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = DEPLOY / "compose"
        cls.file = yaml.safe_load((cls.folder / "compose.yaml").read_text())

    def test_it_is_what_the_specification_says(self):
        compose_spec.PyCompose.from_json(json.dumps(self.file)).to_spec()
        with self.assertRaises(ValueError):
            compose_spec.PyCompose.from_json(json.dumps({"services": {"a": {"image": "a", "mem_limitt": "1m"}}}))

    def test_docker_reads_it(self):
        docker = engine()
        if subprocess.run([docker, "compose", "version"], capture_output=True, timeout=30).returncode:
            missing("docker has no compose here")
        run(docker, "compose", "-f", self.folder / "compose.yaml", "config", "--quiet")

    def test_services_are_pinned_bounded_and_on_loopback(self):
        for name, service in self.file["services"].items():
            with self.subTest(name):
                self.assertRegex(service["image"], r":v?\d+\.\d+\.\d+$")
                self.assertIn("mem_limit", service)
                self.assertEqual(service["cap_drop"], ["ALL"])
                for port in service.get("ports", []):
                    self.assertTrue(port.startswith("127.0.0.1:"), port)

    def test_nobody_changes_anything_with_a_password_that_everybody_knows(self):
        grafana = self.file["services"]["grafana"]["environment"]
        for name, value in {"ANONYMOUS_ORG_ROLE": "Viewer", "BASIC_ENABLED": "false", "DISABLE_LOGIN_FORM": "true"}.items():
            self.assertEqual(grafana[f"GF_AUTH_{name}"], value)

    def test_what_is_mounted_is_there(self):
        for name, service in self.file["services"].items():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((self.folder / source).exists(), f"{name}: {source}")
                else:
                    self.assertIn(source, self.file["volumes"])

    def test_the_parts_name_one_another(self):
        services = self.file["services"]
        collector = yaml.safe_load((self.folder / "collector.yaml").read_text())
        for pipeline in collector["service"]["pipelines"].values():
            for kind in ("receivers", "processors", "exporters"):
                self.assertLessEqual({*pipeline[kind]}, {*collector[kind]})
        sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/switchboard.yaml").read_text())
        scrapes = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
        hosts = [
            collector["exporters"]["otlp/traces"]["endpoint"],
            services["switchboard"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"],
            *(s["url"] for s in sources["datasources"]),
            *(t for s in scrapes for c in s["static_configs"] for t in c["targets"]),
        ]
        for host in hosts:
            name = re.sub(r"^https?://", "", host).split(":")[0]
            self.assertIn(name, {*services, "127.0.0.1"})
        uids = {s["uid"] for s in sources["datasources"]}
        for source in sources["datasources"]:
            for link in source.get("jsonData", {}).get("exemplarTraceIdDestinations", []):
                self.assertIn(link["datasourceUid"], uids)


if __name__ == "__main__":
    unittest.main()
