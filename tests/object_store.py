"""A real S3-compatible server on loopback (moto's, in a process of its own), behind a proxy that does harm on purpose.

The server checks If-None-Match and If-Match and then writes, in two steps: the proxy lets one conditional request through
at a time, so that both are one step as on S3.
"""

import http.client
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "secret-of-tests", "AWS_REGION": "us-east-1"}
FAULTS = ("reset before", "reset after", "reset within", "500 before", "500 after", "slow")
"""`before` the server sees a request, `after` it has done it (nobody knows then), `within` the body of its answer."""
ERROR = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>%s</Code><Message>injected</Message>"
    b"<RequestId>0123456789ABCDEF</RequestId><HostId>" + b"0" * 76 + b"</HostId></Error>"
)
"""As long as those of S3, which is longer than many an object."""


@dataclass
class Harm:
    """What the proxy does to requests. `rate`: the share that is harmed, drawn from `seed`."""

    rate: float = 0.0
    seed: int = 0
    conditions: bool = True
    """False: conditional writes are answered with 501, as some S3 clones do."""
    denied: str = ""
    """A code that every request is answered with: AccessDenied, InvalidAccessKeyId."""
    planned: deque[str] = field(default_factory=deque)
    """What the next requests meet, one each: a fault, "cut" (half a body), "denied" (once, for good), or nothing."""
    done: dict[str, int] = field(default_factory=dict)
    """By fault, how often."""
    num_requests: int = 0

    def __post_init__(self) -> None:
        self.drawn, self.lock = random.Random(self.seed), threading.Lock()

    def next(self) -> str:
        with self.lock:
            self.num_requests += 1
            drawn = self.drawn.choice(FAULTS) if self.drawn.random() < self.rate else ""
            fault = self.planned.popleft() if self.planned else drawn
            if fault:
                self.done[fault] = self.done.get(fault, 0) + 1
            return fault


class Proxy(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    harm: Harm
    upstream: int
    one_at_a_time = threading.Lock()

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def forward(self) -> None:
        body, fault = self.body(), self.harm.next()
        conditional = self.command == "PUT" and bool({"if-none-match", "if-match"} & {k.lower() for k in self.headers})
        if self.harm.denied or fault == "denied":
            self.say(403, ERROR % (self.harm.denied or "AnInventedCode").encode())
        elif f"Credential={CREDENTIALS['AWS_ACCESS_KEY_ID']}/" not in self.headers.get("Authorization", ""):
            self.say(403, ERROR % b"InvalidAccessKeyId")
        elif conditional and not self.harm.conditions:
            self.say(501, ERROR % b"NotImplemented")
        elif fault == "reset before":
            self.reset()
        elif fault == "500 before":
            self.say(500, ERROR % b"InternalError")
        else:
            self.answer(fault, *self.asked(body, conditional))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

    def asked(self, body: bytes, conditional: bool) -> tuple[int, list[tuple[str, str]], bytes]:
        server = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "expect")}
        headers["Content-Length"] = str(len(body))
        try:
            if conditional:
                with self.one_at_a_time:
                    server.request(self.command, self.path, body, headers)
                    answer = server.getresponse()
                    return answer.status, answer.getheaders(), answer.read()
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            server.close()

    def answer(self, fault: str, status: int, headers: list[tuple[str, str]], payload: bytes) -> None:
        if fault == "reset after":
            self.reset()
        elif fault == "500 after":
            self.say(503, ERROR % b"SlowDown")
        else:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = dict((k.lower(), v) for k, v in headers).get("content-length", str(len(payload)))
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(payload)))
            self.end_headers()
            self.send(payload, fault)

    def send(self, payload: bytes, fault: str) -> None:
        if fault in ("reset within", "cut"):
            self.wfile.write(payload[: len(payload) // 2])
            self.close_connection = True
            if fault == "reset within":
                self.reset()
        elif fault == "slow":
            step = max(1, len(payload) // 5)
            for first in range(0, len(payload), step):
                time.sleep(0.05)
                self.wfile.write(payload[first : first + step])
        else:
            self.wfile.write(payload)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def say(self, status: int, payload: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.close_connection = True
        self.connection.close()

    def log_message(self, *given: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Of a socket that listens already, wherever it was opened."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, handler: type[Proxy]) -> None:
        super().__init__(listening.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was reset on purpose."""


@dataclass
class ObjectStore:
    """The server and its proxy. `environment`: how a client finds them."""

    endpoint: str
    direct: str
    harm: Harm

    @property
    def environment(self) -> dict[str, str]:
        return {**CREDENTIALS, **self.location}

    @property
    def location(self) -> dict[str, str]:
        """Without credentials."""
        region = {"AWS_REGION": CREDENTIALS["AWS_REGION"], "AWS_EC2_METADATA_DISABLED": "true"}
        return {"AWS_ENDPOINT_URL": self.endpoint, **region}

    def client(self) -> Any:
        """boto3, past the proxy."""
        import boto3

        names = {"aws_access_key_id": "tests", "aws_secret_access_key": "secret-of-tests", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.direct, **names)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))


@contextmanager
def object_store(listening: socket.socket | None = None) -> Iterator[ObjectStore]:
    """`listening`: where clients are waited for; None: on a port of this machine."""
    listening = listening or socket.create_server(("127.0.0.1", 0))
    host, reached = listening.getsockname()
    port = free_port()
    program = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_port(server, port)
        harm = Harm()
        proxy = Server(listening, type("OneProxy", (Proxy,), {"harm": harm, "upstream": port}))
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield ObjectStore(f"http://{host}:{reached}", f"http://127.0.0.1:{port}", harm)
        proxy.shutdown()
        proxy.server_close()
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(server: "subprocess.Popen[bytes]", port: int) -> None:
    while True:
        assert server.poll() is None, "moto's server did not start"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
