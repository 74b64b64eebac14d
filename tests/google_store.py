"""As much of Google Cloud Storage's JSON API as Google's Python client asks here, in memory, with generations and conditions.

No real server: it shows which requests are made and under which conditions, not what Google makes of them. pyarrow's
client, which moves the large objects, asks for more than this has.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import crc32c


class Google(BaseHTTPRequestHandler):
    """One bucket, `box`. `objects`: (generation, bytes) by name."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[int, bytes]]
    lock: threading.Lock
    count: Iterator[int]

    def do_POST(self) -> None:
        parts, query, body = self.asked()
        if parts[0] == "upload":
            boundary = self.headers["Content-Type"].partition("boundary=")[2].strip("'\"").encode()
            _, about, content, _ = body.split(b"--" + boundary, 3)
            name = json.loads(about.partition(b"\r\n\r\n")[2])["name"]
            self.write(name, query, content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
        else:  # .../o/SOURCE/copyTo/b/box/o/TARGET
            self.write(unquote(parts[-1]), {}, self.objects[unquote(parts[5])][1])

    def do_GET(self) -> None:
        parts, query, _ = self.asked()
        at = parts.index("o") if "o" in parts else len(parts)
        if parts[parts.index("b") + 1] != "box":
            self.say(404, b'{"error": {"code": 404, "message": "The specified bucket does not exist."}}')
        elif at == len(parts):
            self.say(200, b'{"kind": "storage#bucket", "name": "box"}')
        elif len(parts) == at + 1:
            prefix, first = query.get("prefix", ""), query.get("startOffset", "")
            names = sorted(name for name in self.objects if name.startswith(prefix) and name >= first)
            self.say(200, json.dumps({"items": [self.about(name) for name in names]}).encode())
        elif query.get("alt") == "media":
            self.read(unquote(parts[at + 1]), query)
        elif (name := unquote(parts[at + 1])) in self.objects:
            self.say(200, json.dumps(self.about(name)).encode())
        else:
            self.say(404, b'{"error": {"code": 404, "message": "No such object"}}')

    def do_DELETE(self) -> None:
        parts, _, _ = self.asked()
        gone = self.objects.pop(unquote(parts[-1]), None)
        self.say(204 if gone else 404, b"")

    def read(self, name: str, query: dict[str, str]) -> None:
        generation, payload = self.objects.get(name, (0, b""))
        if not generation:
            self.say(404, b"{}")
        elif query.get("ifGenerationMatch", str(generation)) != str(generation):
            self.say(412, b"{}")
        else:
            self.say(200, payload, {"X-Goog-Hash": f"crc32c={checksum(payload)}"})

    def write(self, name: str, query: dict[str, str], payload: bytes) -> None:
        with self.lock:
            condition, there = query.get("ifGenerationMatch"), self.objects.get(name, (0, b""))[0]
            if condition is not None and int(condition) != there:
                self.say(412, b'{"error": {"code": 412, "message": "conditionNotMet"}}')
                return
            self.objects[name] = (next(self.count), payload)
        self.say(200, json.dumps(self.about(name)).encode())

    def about(self, name: str) -> dict[str, Any]:
        generation, payload = self.objects[name]
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": "box",
            "generation": str(generation),
            "metageneration": "1",
            "size": str(len(payload)),
            "crc32c": checksum(payload),
            "timeCreated": "2026-01-01T00:00:00Z",
            "updated": "2026-01-01T00:00:00Z",
        }

    def asked(self) -> tuple[list[str], dict[str, str], bytes]:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return url.path.strip("/").split("/"), {k: v[0] for k, v in parse_qs(url.query).items()}, body

    def say(self, status: int, payload: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *given: Any) -> None:
        pass


def checksum(payload: bytes) -> str:
    return base64.b64encode(crc32c.crc32c(payload).to_bytes(4, "big")).decode()


@contextmanager
def google_store() -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """(its address, its objects)."""
    state: dict[str, Any] = {"objects": {}, "lock": threading.Lock(), "count": count(1)}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneGoogle", (Google,), state))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", state["objects"]
    server.shutdown()
    server.server_close()
