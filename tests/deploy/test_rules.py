"""The alerts: that they fire when they should, that each says what to do, and that what they ask is measured."""
import json
import re
import unittest

from tools import DEPLOY, metrics_in, packages, reference, run, tool

packages()
import yaml  # noqa: E402

PROMETHEUS = DEPLOY / "prometheus"


def rules():
    groups = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def headings(file):
    """The anchors of a page."""
    found = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in found}


class Rules(unittest.TestCase):
    def test_promtool_takes_rules_and_configuration(self):
        promtool = tool("prometheus/usr/bin/promtool")
        run(promtool, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml", cwd=PROMETHEUS)
        run(promtool, "check", "config", "--lint=all", "prometheus.yaml", cwd=PROMETHEUS)

    def test_each_alert_fires_when_it_should_and_not_before(self):
        run(tool("prometheus/usr/bin/promtool"), "test", "rules", "rules_test.yaml", cwd=PROMETHEUS)
        cases = [c for t in yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]
                 for c in t["alert_rule_test"]]
        fire = {c["alertname"] for c in cases if c["exp_alerts"]}
        quiet = {c["alertname"] for c in cases if not c["exp_alerts"]}
        alerts = {r["alert"] for r in rules() if "alert" in r}
        self.assertEqual(alerts, fire)
        self.assertEqual(alerts, quiet)

    def test_each_alert_says_what_to_do(self):
        anchors = headings(DEPLOY / "README.md")
        for rule in rules():
            if "alert" not in rule:
                continue
            with self.subTest(rule["alert"]):
                self.assertIn(rule["labels"]["severity"], {"critical", "warning", "info"})
                self.assertEqual({*rule["annotations"]}, {"summary", "description", "runbook"})
                page, anchor = rule["annotations"]["runbook"].split("#")
                self.assertEqual((page, anchor), ("deploy/README.md", rule["alert"].lower()))
                self.assertIn(anchor, anchors)

    def test_what_is_asked_is_measured(self):
        records = {r["record"] for r in rules() if "record" in r}
        for rule in rules():
            with self.subTest(rule.get("alert") or rule["record"]):
                self.assertEqual(metrics_in(rule["expr"]) - reference() - records, set())

    def test_words_of_failed_commands_are_words_of_the_program(self):
        source = "".join(f.read_text() for f in (DEPLOY.parent / "src/protocol/shell").rglob("*.rs"))
        rule = next(r for r in rules() if r.get("record") == "switchboard:command_failures:ratio_rate5m")
        words = re.search(r'error_type=~"([^"]+)"', rule["expr"])[1].split("|")
        for word in words:
            self.assertIn(f'"{word}"', source)


class Dashboard(unittest.TestCase):
    def test_what_is_asked_is_measured(self):
        panels = json.loads((DEPLOY / "grafana/switchboard.json").read_text())["panels"]
        for panel in panels:
            for target in panel.get("targets", []):
                with self.subTest(panel["title"], query=target["expr"]):
                    self.assertEqual(metrics_in(target["expr"]) - reference() - {"target_info"}, set())

    def test_all_that_is_measured_is_on_it(self):
        panels = json.loads((DEPLOY / "grafana/switchboard.json").read_text())["panels"]
        asked = {m for p in panels for t in p.get("targets", []) for m in metrics_in(t["expr"])}
        self.assertEqual(reference() - asked, set())

    def test_panels_are_told_apart_and_do_not_overlap(self):
        panels = json.loads((DEPLOY / "grafana/switchboard.json").read_text())["panels"]
        self.assertEqual(len({p["id"] for p in panels}), len(panels))
        taken = set()
        for panel in panels:
            g = panel["gridPos"]
            cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
            self.assertLessEqual(g["x"] + g["w"], 24, panel["title"])
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells


if __name__ == "__main__":
    unittest.main()
