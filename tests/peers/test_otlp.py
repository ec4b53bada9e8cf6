"""What the service tells an OTLP collector that somebody else wrote: the spans and their links, the metrics, and whose they are."""
import contextlib
import socket
import subprocess
import sys
import time
import unittest

from harness import PACKAGES, Service, binary, datagrams, eventually, receive, switchboard
from otlp_receiver import OverGrpc, OverHttp, attributes
from shell_case import read_frame

sys.path.append(str(PACKAGES))

import grpc
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

SERVER, CLIENT = trace_pb2.Span.SPAN_KIND_SERVER, trace_pb2.Span.SPAN_KIND_CLIENT
SCHEMA = "https://opentelemetry.io/schemas/"
EVERYTHING = {f"sample_{kind}": 1.0 for kind in ("sessions", "commands", "messages", "datagrams", "reads")}
ROOM = {"protocol": "chat", "mode": "room", "pace": "free", "framing": "line"}


def service(receiver, telemetry=EVERYTHING, **variables):
    """Five listeners, and all that they do told to the receiver."""
    shell = {"protocol": "shell", "policy": "programs", "programs": ["echo", "false"], "framing": "line"}
    it = Service(ack={}, udp={"protocol": "uppercase"}, room=ROOM, desk={"protocol": "chat"}, shell=shell)
    it.config["telemetry"] |= telemetry
    it.variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.PROTOCOL,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    } | variables
    return it


def call(port, method, name, **metadata):
    """A control call whose request is nothing but a name in its first field."""
    request = b"\x0a" + bytes([len(name)]) + name.encode()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return channel.unary_unary(f"/switchboard.v1.{method}")(request, metadata=[*metadata.items()], timeout=10)


class Told:
    """The same over either protocol."""

    @classmethod
    def setUpClass(cls):
        cls.told = cls.enterClassContext(cls.RECEIVER())
        cls.service = service(
            cls.told,
            OTEL_RESOURCE_ATTRIBUTES="k8s.pod.name=a%20pod,deployment.environment.name=test",
            OTEL_SERVICE_NAME="front-desk",
            OTEL_EXPORTER_OTLP_HEADERS="x-tenant=blue%20team",
            OTEL_EXPORTER_OTLP_METRICS_COMPRESSION="gzip",
        ).during(cls)

    def talk(self, listener):
        return contextlib.closing(self.service.connect(listener))

    def setup_of(self, session):
        """The set-up span of a session."""
        def find():
            spans = self.told.spans(f"session setup {session['name'].split('/')[1]}")
            return next((s for s in spans if s.trace_id.hex() == session["traceId"]), None)

        return eventually(find, f"the span of {session}")

    def session(self, listener, connection):
        """As the control plane shows it."""
        peer = "%s:%d" % connection.getsockname()

        def find():
            sessions = self.service.ask("session", "ls", listener).get("sessions", [])
            return next((s for s in sessions if s["peer"] == peer), None)

        return eventually(find, f"the session of {peer}")

    def linked(self, span):
        return [(link.trace_id, link.span_id) for link in span.links]

    def find(self, name, wanted):
        return eventually(lambda: next((s for s in self.told.spans(name) if wanted(s)), None), f"such a span {name}")

    def test_a_session_is_a_short_root_and_its_command_a_trace_of_its_own_linked_to_it(self):
        with self.talk("shell") as shell:
            shell.sendall(b"false\n")
            header, _ = read_frame(shell)
            session = self.session("shell", shell)
        setup = self.setup_of(session)
        self.assertEqual((setup.kind, setup.parent_span_id), (SERVER, b""))
        self.assertLess(setup.end_time_unix_nano - setup.start_time_unix_nano, 10**9)
        about = attributes(setup)
        self.assertEqual(about["switchboard.session.id"], session["name"].rsplit("/", 1)[1])
        expected = {"switchboard.listener.name": "shell", "switchboard.listener.protocol": "shell",
                    "network.transport": "tcp", "network.type": "ipv4"}
        self.assertEqual(expected, {k: about[k] for k in expected})

        command = self.find("shell command", lambda s: s.trace_id.hex() == header["trace_id"])
        self.assertEqual((command.kind, command.parent_span_id), (SERVER, b""))
        self.assertNotEqual(command.trace_id, setup.trace_id)
        self.assertEqual(self.linked(command), [(setup.trace_id, setup.span_id)])
        self.assertEqual(command.status.code, trace_pb2.Status.STATUS_CODE_ERROR)
        (row,) = self.service.ask("audit", "commands", "--filter", f'trace_id = "{header["trace_id"]}"')["commands"]
        self.assertEqual(row["command"], "false")
        process = self.find("false", lambda s: s.trace_id == command.trace_id)
        self.assertEqual((process.kind, process.parent_span_id), (CLIENT, command.span_id))
        told = attributes(process)
        self.assertEqual(told, {"process.executable.name": "false", "process.exit.code": 1, "error.type": "exit_code"})

    def test_a_message_is_one_span_with_its_recipients_counted(self):
        with self.talk("room") as speaker, self.talk("room") as one, self.talk("room") as two:
            for member in (speaker, one, two):
                self.session("room", member)
            speaker.sendall(b"hello\n")
            for member in (one, two):
                self.assertEqual(receive(member, 6), b"hello\n")
            setup = self.setup_of(self.session("room", speaker))
        message = self.find("message", lambda s: self.linked(s) == [(setup.trace_id, setup.span_id)])
        self.assertEqual((message.kind, message.parent_span_id), (SERVER, b""))
        self.assertEqual(attributes(message)["switchboard.message.recipients"], 2)
        self.assertNotIn("hello", str(message))
        with self.talk("ack") as ack:
            ack.sendall(b"x")
            receive(ack, len("received data!!"))
            setup = self.setup_of(self.session("ack", ack))
        self.find("message", lambda s: self.linked(s) == [(setup.trace_id, setup.span_id)])

    def test_a_datagram_is_a_span_without_a_session(self):
        with contextlib.closing(datagrams(self.service.port("udp"))) as asker:
            asker.send(b"quiet")
            self.assertEqual(asker.recv(100), b"QUIET")
        datagram = self.find("datagram", lambda s: attributes(s)["switchboard.listener.name"] == "udp")
        self.assertEqual((self.linked(datagram), datagram.parent_span_id), ([], b""))
        self.assertEqual(attributes(datagram)["network.transport"], "udp")

    def test_a_call_continues_its_callers_trace_and_is_linked_to_the_session_it_is_about(self):
        with self.talk("ack") as ack:
            session = self.session("ack", ack)
            setup = self.setup_of(session)
            trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
            method = "SessionService/CloseSession"
            metadata = {"traceparent": f"00-{trace}-{parent}-01", "tracestate": "vendor=1", "baggage": "secret=hush"}
            call(self.service.port("grpc"), method, session["name"], **metadata)
        span = self.find(f"switchboard.v1.{method}", lambda s: s.trace_id.hex() == trace)
        self.assertEqual((span.kind, span.parent_span_id.hex()), (SERVER, parent))
        self.assertEqual(span.trace_state, "vendor=1")
        self.assertEqual(self.linked(span), [(setup.trace_id, setup.span_id)])
        told = attributes(span)
        self.assertEqual(told["rpc.system.name"], "grpc")
        self.assertEqual(told["rpc.method"], f"switchboard.v1.{method}")
        self.assertEqual(told["rpc.response.status_code"], "OK")
        self.assertNotIn("hush", str(self.told.spans()))
        rows = self.service.ask("audit", "--filter", f'trace_id = "{trace}"')["auditEvents"]
        self.assertEqual([row["method"] for row in rows], [f"switchboard.v1.{method}"])

    def test_what_an_operator_does_is_linked_to_the_peers_session(self):
        with self.talk("desk") as peer:
            peer.sendall(b"anybody there?")
            waiting = self.service.waiting("desk")
            setup = self.setup_of(self.session("desk", peer))
            self.service.reply(waiting, "yes")
        link = [(setup.trace_id, setup.span_id)]
        reply = self.find("switchboard.v1.ChatService/ReplyConversation", lambda s: self.linked(s) == link)
        self.assertNotIn("yes", str(reply))

    def test_what_is_done_at_a_seat_is_told_while_it_is_taken(self):
        method = "switchboard.v1.ChatService/{}".format
        endpoint = f"http://127.0.0.1:{self.service.port('grpc')}"
        taken = len(self.told.spans(method("AttachDesk")))
        with self.talk("desk") as peer:
            peer.sendall(b"anybody there?")
            self.service.waiting("desk")
            setup = self.setup_of(self.session("desk", peer))
            command = [binary(), "chat", "attach", "desk", "--plain", "--operator", "ann", "--endpoint", endpoint]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as seat:
                seat.stdin.write(b"claim\nreply one moment\n")
                seat.stdin.flush()
                self.assertEqual(receive(peer, 10), b"one moment")
                self.told.await_spans(method("AttachDesk"), taken + 1)
                link = [(setup.trace_id, setup.span_id)]
                for verb in ("ClaimConversation", "ReplyConversation"):
                    span = self.find(method(verb), lambda s: self.linked(s) == link)
                    (row,) = self.service.ask("audit", "--filter", f'trace_id = "{span.trace_id.hex()}"')["auditEvents"]
                    self.assertEqual((row["method"], attributes(span)["rpc.response.status_code"]), (method(verb), "OK"))
                seat.stdin.close()
                self.assertEqual(seat.wait(10), 0)

    def test_a_streams_span_ends_with_the_stream(self):
        method = "switchboard.v1.ListenerService/WatchListeners"
        with grpc.insecure_channel(f"127.0.0.1:{self.service.port('grpc')}") as channel:
            began = time.time_ns()
            stream = channel.unary_stream(f"/{method}")(b"", timeout=10)
            next(stream)
            told = time.time_ns()
            # The spans of a call that begins now are told, and this one's is not.
            before = len(self.told.spans("switchboard.v1.ListenerService/ListListeners"))
            self.service.ask("listener", "ls")
            self.told.await_spans("switchboard.v1.ListenerService/ListListeners", before + 1)
            self.assertEqual(self.told.spans(method), [])
            stream.cancel()
        (span,) = self.told.await_spans(method)
        self.assertEqual(attributes(span)["rpc.response.status_code"], "CANCELLED")
        self.assertLess(began, span.start_time_unix_nano)
        self.assertLess(told, span.end_time_unix_nano)

    def test_every_signal_says_whose_it_is_and_by_which_schema(self):
        eventually(lambda: self.told.of("metrics"), "metrics")
        with self.talk("ack"):
            self.told.await_spans("session setup ack")
        resources = [r for t in self.told.of("traces") for r in t.resource_spans]
        metered = [r for m in self.told.of("metrics") for r in m.resource_metrics]
        for told in resources + metered:
            about = attributes(told.resource)
            self.assertEqual(about["service.name"], "front-desk")
            self.assertEqual(about["k8s.pod.name"], "a pod")
            self.assertEqual(about["deployment.environment.name"], "test")
            self.assertEqual(about["process.pid"], self.service.process.pid)
            self.assertEqual(about["host.name"], socket.gethostname())
            self.assertEqual(about["os.type"], sys.platform)
            self.assertEqual(about["process.executable.name"], "switchboard")
            for key in ("service.version", "service.instance.id", "telemetry.sdk.language"):
                self.assertTrue(about[key], key)
            self.assertTrue(told.schema_url.startswith(SCHEMA), told.schema_url)
        scopes = [s for r in resources for s in r.scope_spans] + [s for r in metered for s in r.scope_metrics]
        for scope in scopes:
            self.assertEqual((scope.scope.name, scope.schema_url), ("switchboard", told.schema_url))
            self.assertTrue(scope.scope.version)
        info = self.service.ask("server", "info")
        self.assertEqual(info["semconvSchemaUrl"], told.schema_url)
        for head in self.told.heads:
            self.assertEqual(head["x-tenant"], "blue team")
            self.assertTrue(head["user-agent"].startswith("switchboard/"), head)

    def test_metrics_are_cumulative_with_exemplars_and_a_deleted_listeners_stop(self):
        done = self.service.cli("listener", "create", "goes", "--protocol", "ack", "--bind", "127.0.0.1:0")
        self.assertEqual(done.returncode, 0, done.stderr)
        with self.talk("ack") as ack:
            ack.sendall(b"x")
            receive(ack, len("received data!!"))
            metrics = self.told.next_metrics()
        accepted = metrics["switchboard.listener.connections"]
        self.assertEqual(accepted.unit, "{connection}")
        self.assertTrue(accepted.sum.is_monotonic)
        self.assertEqual(accepted.sum.aggregation_temporality, metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE)
        names = lambda metric, kind: {attributes(p).get("switchboard.listener.name") for p in getattr(metric, kind).data_points}
        self.assertLessEqual({"ack", "goes"}, names(accepted, "sum"))
        active = metrics["switchboard.session.active"]
        self.assertFalse(active.sum.is_monotonic)

        setup = metrics["switchboard.session.setup.duration"].histogram
        point = next(p for p in setup.data_points if attributes(p)["switchboard.listener.name"] == "ack")
        self.assertEqual(sum(point.bucket_counts), point.count)
        self.assertEqual(len(point.bucket_counts), len(point.explicit_bounds) + 1)
        self.assertGreater(point.start_time_unix_nano, 0)
        exemplars = {e.trace_id for e in point.exemplars}
        self.assertTrue(exemplars)
        told = lambda: exemplars <= {s.trace_id for s in self.told.spans("session setup ack")}
        eventually(told, "the spans that the exemplars are of")

        done = self.service.cli("listener", "delete", "goes", "--force")
        self.assertEqual(done.returncode, 0, done.stderr)
        for metric in self.told.next_metrics().values():
            kind = metric.WhichOneof("data")
            self.assertNotIn("goes", names(metric, kind), metric.name)


class ToldOverGrpc(Told, unittest.TestCase):
    RECEIVER = OverGrpc


class ToldOverHttp(Told, unittest.TestCase):
    RECEIVER = OverHttp


class AsIsSet(unittest.TestCase):
    """What settings and variables make of it."""

    def test_nothing_is_sampled_that_is_not_to_be_and_changes_always_are(self):
        none = {key: 0.0 for key in EVERYTHING}
        with OverGrpc() as told, service(told, none) as it:
            with contextlib.closing(it.connect("ack")) as ack:
                ack.sendall(b"x")
                receive(ack, len("received data!!"))
            it.ask("listener", "ls")
            it.ask("listener", "pause", "ack")
            told.await_spans("switchboard.v1.ListenerService/PauseListener")
            names = {span.name for span in told.spans()}
        self.assertEqual(names, {"switchboard.v1.ListenerService/PauseListener"})

    def test_the_samplers_variable_thins_everything_out(self):
        with OverHttp() as told, service(told, OTEL_TRACES_SAMPLER="always_off") as it:
            with contextlib.closing(it.connect("ack")) as ack:
                ack.sendall(b"x")
                receive(ack, len("received data!!"))
            it.ask("listener", "pause", "ack")
            told.next_metrics()
        self.assertEqual(told.spans(), [])

    def test_what_is_told_last_is_told_before_the_end(self):
        with OverGrpc() as told, service(told, OTEL_BSP_SCHEDULE_DELAY="60000", OTEL_METRIC_EXPORT_INTERVAL="60000") as it:
            it.ask("listener", "pause", "ack")
            it.stop()
            self.assertEqual(len(told.spans("switchboard.v1.ListenerService/PauseListener")), 1)
            self.assertIn("switchboard.listener.status", told.metrics())

    def test_what_a_collector_postpones_comes_when_it_says_and_once(self):
        with OverGrpc([300, 300, 300]) as told, service(told) as it:
            it.ask("listener", "pause", "ack")
            told.await_spans("switchboard.v1.ListenerService/PauseListener")
            came = time.monotonic()
            it.ask("listener", "resume", "ack")
            told.await_spans("switchboard.v1.ListenerService/ResumeListener")
            dropped = told.next_metrics()["switchboard.telemetry.dropped"].sum.data_points
        names = [span.name for span in told.spans()]
        self.assertEqual(len(names), len(set(names)), names)
        tries = [*told.tries, came]
        self.assertEqual(len(tries), 4)
        for one, next_one in zip(tries, tries[1:]):
            self.assertGreaterEqual(next_one - one, 0.3)
        self.assertEqual({attributes(p)["switchboard.telemetry.signal"]: p.as_double for p in dropped}["traces"], 0)

    def test_what_cannot_be_obeyed_is_said_once_and_no_secret_is(self):
        odd = {"OTEL_PROPAGATORS": "b3", "OTEL_TRACES_SAMPLER": "xray", "OTEL_BSP_MAX_QUEUE_SIZE": "many",
               "OTEL_EXPORTER_OTLP_HEADERS": "authorization", "OTEL_METRICS_EXPORTER": "console",
               "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
        with OverGrpc() as told, service(told, **odd) as it:
            it.ask("listener", "ls")
            log = it.stderr()
        for variable in odd:
            self.assertEqual(log.count(variable), 1, log)
        self.assertNotIn("authorization", log)

    def test_an_endpoint_that_cannot_be_used_keeps_it_from_starting(self):
        for variables, said in [
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http/protobuf"),
            ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://me:hush@c:1"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ]:
            done = switchboard("check", variables=variables)
            self.assertEqual(done.returncode, 78, done.stderr)
            self.assertIn(said, done.stderr.decode())
            self.assertNotIn("hush", done.stderr.decode())


if __name__ == "__main__":
    unittest.main()
