"""A collector that keeps what it is sent: the protocol's own service of PyPI's opentelemetry-proto, over gRPC and over HTTP."""
import concurrent.futures
import gzip
import http.server
import sys
import threading
import time

from harness import PACKAGES, eventually

sys.path.append(str(PACKAGES))

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Received:
    """Everything that came, the latest last."""

    def __init__(self):
        self.lock, self.requests, self.heads = threading.Lock(), {"traces": [], "metrics": []}, []

    def keep(self, signal, request, head):
        with self.lock:
            self.requests[signal].append(request)
            self.heads.append({k.lower(): v for k, v in head})

    def of(self, signal):
        with self.lock:
            return list(self.requests[signal])

    def spans(self, name=None):
        """Every span so far, or those of a name."""
        scopes = (s for request in self.of("traces") for r in request.resource_spans for s in r.scope_spans)
        return [span for scope in scopes for span in scope.spans if name in (None, span.name)]

    def await_spans(self, name, count=1):
        """All of a name, once there are so many."""
        eventually(lambda: len(self.spans(name)) >= count, f"{count} spans called {name}")
        return self.spans(name)

    def metrics(self, request=None):
        """The metrics of an export by name; of the latest, unless one is given."""
        requests = self.of("metrics") if request is None else [request]
        if not requests:
            return {}
        scopes = (s for r in requests[-1].resource_metrics for s in r.scope_metrics)
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def next_metrics(self):
        """Those of an export that began after now."""
        before = len(self.of("metrics"))
        # The one that is under way may have been collected before.
        eventually(lambda: len(self.of("metrics")) >= before + 2, "two more exports of metrics")
        return self.metrics(self.of("metrics")[before + 1])


def field(number, value):
    """A field of a message that is bytes, shorter than 128."""
    return bytes([number << 3 | 2, len(value)]) + value


def later(milliseconds):
    """A google.rpc.Status with its RetryInfo, of less than a second."""
    nanos, duration = milliseconds * 10**6, b"\x10"
    while nanos > 127:
        duration, nanos = duration + bytes([nanos & 127 | 128]), nanos >> 7
    retry = field(1, duration + bytes([nanos]))
    detail = field(1, b"type.googleapis.com/google.rpc.RetryInfo") + field(2, retry)
    return b"\x08\x0e" + field(2, b"later") + field(3, detail)


class OverGrpc(Received, trace_service_pb2_grpc.TraceServiceServicer):
    PROTOCOL = "grpc"

    def __init__(self, postponed=()):
        """The first exports of traces are to come again after so many milliseconds each, the last of them first."""
        super().__init__()
        self.postponed, self.tries = list(postponed), []

    def __enter__(self):
        outer = self

        class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
            def Export(self, request, context):
                outer.keep("metrics", request, context.invocation_metadata())
                return metrics_service_pb2.ExportMetricsServiceResponse()

        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), self.server)
        self.endpoint = "http://127.0.0.1:%d" % self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        return self

    def Export(self, request, context):
        if self.postponed:
            self.tries.append(time.monotonic())
            delay = self.postponed.pop()
            context.set_trailing_metadata([("grpc-status-details-bin", later(delay))])
            context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        self.keep("traces", request, context.invocation_metadata())
        return trace_service_pb2.ExportTraceServiceResponse()

    def __exit__(self, *_):
        self.server.stop(None).wait()


class OverHttp(Received):
    PROTOCOL = "http/protobuf"

    def __enter__(self):
        outer, kinds = self, {
            "/v1/traces": ("traces", trace_service_pb2.ExportTraceServiceRequest),
            "/v1/metrics": ("metrics", metrics_service_pb2.ExportMetricsServiceRequest),
        }

        class Post(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                known = kinds.get(self.path) if self.headers["content-type"] == "application/x-protobuf" else None
                if known:
                    outer.keep(known[0], known[1].FromString(body), self.headers.items())
                self.send_response(200 if known else 404)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Post)
        self.server.daemon_threads = True
        self.endpoint = "http://127.0.0.1:%d" % self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def attributes(of):
    """Of a span, a link, a point or a resource, as a dict."""
    def value(v):
        return getattr(v, v.WhichOneof("value"))

    return {pair.key: value(pair.value) for pair in of.attributes}
