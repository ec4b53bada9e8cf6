"""What people write in a shell comes to the same, to the byte, as when Python runs it: in every cage, and without one."""
import os
import pathlib
import pwd
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest

from harness import Service, prefixed
from idioms import IDIOMS
from shell_case import read_frame

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OPEN_FILES = 200
ROOT = os.geteuid() == 0


class Person:
    """Who runs commands, and a folder of theirs to run them in."""

    def __init__(self, case, name=None):
        self.account = pwd.getpwnam(name) if name else None
        self.folder = pathlib.Path(tempfile.mkdtemp())
        case.addClassCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        if self.account:
            os.chown(self.folder, self.account.pw_uid, self.account.pw_gid)

    def output(self):
        """A pipe; who is to open its end anew through /proc must own it."""
        reading, writing = os.pipe()
        if self.account:
            os.fchown(writing, self.account.pw_uid, self.account.pw_gid)
        return open(reading, "rb"), writing

    def run(self, command):
        """The exit code as subprocess has it, stdout and stderr."""
        (stdout, its_stdout), (stderr, its_stderr) = self.output(), self.output()
        who = {}
        if self.account:
            who = {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=its_stdout, stderr=its_stderr,
            env={"PATH": PATH, "HOME": str(self.folder), "TMPDIR": str(self.folder)}, cwd=self.folder,
            umask=0o077, start_new_session=True, preexec_fn=limit, **who,
        )
        os.close(its_stdout), os.close(its_stderr)
        said = {}

        def read(which, pipe):
            with pipe:
                said[which] = pipe.read()

        readers = [threading.Thread(target=read, args=a) for a in ((1, stdout), (2, stderr))]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        return process.wait(), said[1], said[2]


def limit():
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(connection, command):
    """The same of the framed shell."""
    connection.sendall(prefixed(command.encode()))
    header, body = read_frame(connection)
    assert "error" not in header and not header["truncated"], header
    code = header["exit_code"] if header["signal"] is None else -signal.Signals[header["signal"]]
    cut = header["stdout_len"]
    return code, body[:cut], body[cut:]


def shown(result):
    """What a person can compare when a test fails."""
    return tuple(part if isinstance(part, int) else (len(part), part[:500]) for part in result)


class Idioms(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        shell = {"protocol": "shell", "policy": "any", "framing": "length"}
        shell["sandbox"] = {"max_open_files": OPEN_FILES}
        cages = {"caged": {}, "landlock": {"isolation": "landlock"}}
        cages["free"] = {"isolation": "none", "min_isolation": "none"}
        if ROOT:
            cages["root"] = cages["free"] | {"run_as": "root"}
        cls.service = Service(**{n: shell | {"sandbox": shell["sandbox"] | c} for n, c in cages.items()}).during(cls)

    def assert_same(self, listener, name=None):
        person = Person(type(self), name)
        with self.service.connect(listener) as connection:
            for idiom, command in IDIOMS.items():
                with self.subTest(idiom, command=command[:200]):
                    wanted, got = person.run(command), answer(connection, command)
                    self.assertEqual(shown(got), shown(wanted))
                    self.assertTrue(got == wanted, "bytes differ")

    def test_in_the_strongest_cage_of_this_host(self):
        self.assert_same("caged", "nobody" if ROOT else None)

    def test_in_landlock(self):
        self.assert_same("landlock", "nobody" if ROOT else None)

    def test_without_a_cage(self):
        self.assert_same("free", "nobody" if ROOT else None)

    @unittest.skipUnless(ROOT, "only root's service runs commands as root")
    def test_as_root(self):
        self.assert_same("root", "root")


if __name__ == "__main__":
    unittest.main()
