"""What the tests of the framed shell share: its listeners, and a reader of frames that checks every one."""
import contextlib
import json
import pathlib
import struct
import tempfile
import unittest
import uuid

from harness import Service, eventually, processes, receive

KIB = 1024
# The frame's own limit: the oldest clients read a header with one recv(1024).
HEADER_LIMIT = 1024


def marked_sleep():
    """A sleep that outlives any test, told from all others by its length: what to look for, and the command."""
    marker = f"86{uuid.uuid4().int % 10**12:012d}"
    return marker, f"sleep {marker}"


def read_frame(connection):
    """The header and the body of one answer, the header's own promises checked."""
    (size,) = struct.unpack("<i", receive(connection, 4))
    assert 0 < size < HEADER_LIMIT, size
    header = json.loads(receive(connection, size).decode("utf-8"))
    assert list(header)[:2] == ["filename", "len"], header
    body = receive(connection, header["len"])
    assert header["stdout_len"] + header["stderr_len"] == header["len"], header
    return header, body


def line(command):
    return command + b"\n"


class Shell(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.folder.chmod(0o755)
        # What of it a command may write, its modes say.
        shell = {"protocol": "shell", "policy": "any", "sandbox": {"writable": [str(cls.folder)]}}
        tight = {"limits": {"max_message_bytes": 2 * KIB}}
        cls.service = Service(
            raw=shell,
            line=shell | tight | {"framing": "line"},
            length=shell | tight | {"framing": "length"},
            brief=shell | {"command_timeout": "300ms"},
            small=shell | {"max_output_bytes": 64 * KIB},
            patient=shell | {"linger": "10s"},
            quiet=shell | {"raw_quiet": "300ms"},
            gbk=shell | {"output_encoding": "gbk"},
            named=shell | {"filename": '"' * 255, "policy": "programs", "programs": ["echo"]},
            programs=shell | {"policy": "programs", "programs": ["echo", "uname"]},
        ).during(cls)

    def visit(self, listener):
        return contextlib.closing(self.service.connect(listener))

    def run_once(self, listener, command):
        with self.visit(listener) as connection:
            connection.sendall(command)
            return read_frame(connection)

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o755)
        return path

    def assert_refused(self, connection, command):
        """A whole frame that says why, as a key and as one line of text, and a session that goes on."""
        connection.sendall(command)
        header, body = read_frame(connection)
        self.assertTrue(header["error"]["code"], header)
        self.assertTrue(header["error"]["message"], header)
        text = body.decode("utf-8").removesuffix("\n")
        self.assertTrue(text.strip() and "\n" not in text, body)
        return header, body

    def assert_alive(self, connection, command=b"echo alive"):
        connection.sendall(command)
        self.assertEqual(read_frame(connection)[1], b"alive\n")

    def assert_gone(self, marker):
        eventually(lambda: not processes(marker), f"every process of `{marker}` ended")
