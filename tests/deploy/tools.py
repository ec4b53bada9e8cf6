"""Where the tools are that these tests ask, and what is done without one: outside of CI the test is skipped, with the reason.

`tests/run --tools` installs them; nothing here is looked for on the machine itself but an engine for containers.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
TOOLS = REPOSITORY / "target/tools"
# Python's packages that only these tests take, and harness.py with the service in a process of its own.
sys.path[:0] = [str(TOOLS / "deploy"), str(REPOSITORY / "tests/peers")]


def missing(what):
    """In CI a check that was not made is a failure; elsewhere it says that it was not made."""
    if os.environ.get("CI"):
        raise RuntimeError(f"{what}; CI checks it all")
    raise unittest.SkipTest(what)


def tool(name):
    path = TOOLS / name
    if not path.is_file():
        missing(f"{path} does not exist: tests/run --tools installs it where it can")
    return path


def run(*command, **options):
    """What a command printed, both ways; that it fails is a failure."""
    done = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, **options
    )
    if done.returncode:
        raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def engine():
    """An engine that builds and runs containers."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, timeout=30).returncode:
        raise unittest.SkipTest("no engine for containers answers here: `docker info` fails")
    return docker


def packages():
    if not (TOOLS / "deploy").is_dir():
        missing(f"{TOOLS / 'deploy'} does not exist: tests/run --tools installs it")


def reference():
    """The metrics' names, as scraped, that the reference documents."""
    rows = re.findall(r"^\| `([a-z0-9_]+)` \|", (DEPLOY / "metrics.md").read_text(), re.MULTILINE)
    assert len(rows) > 40, rows
    return {*rows}


def metrics_in(expression):
    """The metrics that a query takes: histograms by their base name, records (`a:b`) as they are."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\{[^{}]*\}", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"\b((?:switchboard|process|rpc|otel|target)[:_][a-z0-9_:]+)", bare)
    return {re.sub(r"_(bucket|sum|count)$", "", n) if n not in reference() else n for n in names}
