"""As much of Google Cloud Storage's JSON API as the mirror uses, on loopback and in memory, with generations and preconditions.

No real server: it says how requests look and what their conditions mean, not what Google makes of them.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import crc32c


class Google(BaseHTTPRequestHandler):
    """One bucket, `box`. `objects`: (generation, bytes) by name."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[int, bytes]]
    uploads: dict[str, tuple[str, dict[str, str], bytes]]
    lock: threading.Lock
    count: Iterator[int]

    def do_POST(self) -> None:
        parts, query, body = self.asked()
        if parts[0] == "upload":
            if query["uploadType"] == "resumable":
                name = query.get("name") or json.loads(body)["name"]
                number = str(next(self.count))
                self.uploads[number] = (name, query, b"")
                where = f"http://{self.headers['Host']}/resumable/{number}"
                self.say(200, b"{}", {"Location": where, "X-GUploader-UploadID": number})
            else:
                self.multipart(query, body)
        elif "rewriteTo" in parts or "copyTo" in parts:
            target = unquote(parts[-1])
            self.write(target, {}, self.objects[unquote(parts[5])][1])
        else:
            self.say(404, b"{}")

    def do_PUT(self) -> None:
        parts, _, body = self.asked()
        name, query, before = self.uploads[parts[1]]
        so_far = before + body
        if self.headers["Content-Range"].endswith("/*") and not self.headers["Content-Range"].startswith("bytes */*"):
            self.uploads[parts[1]] = (name, query, so_far)
            self.say(308, b"", {"Range": f"bytes=0-{len(so_far) - 1}"})
        else:
            self.write(name, query, so_far)

    def do_GET(self) -> None:
        parts, query, _ = self.asked()
        if parts[:3] != ["storage", "v1", "b"] and parts[:4] != ["download", "storage", "v1", "b"]:
            name = unquote("/".join(parts[1:]))  # the XML API: /bucket/object
            self.read(name)
            return
        at = parts.index("o") if "o" in parts else len(parts)
        if parts[parts.index("b") + 1] != "box":
            self.say(404, b'{"error": {"code": 404, "message": "The specified bucket does not exist."}}')
        elif at == len(parts):
            self.say(200, json.dumps({"kind": "storage#bucket", "name": "box"}).encode())
        elif len(parts) == at + 1:
            names = sorted(name for name in self.objects if name.startswith(query.get("prefix", "")))
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

    def read(self, name: str, query: dict[str, str] | None = None) -> None:
        if name not in self.objects:
            self.say(404, b"{}")
            return
        generation, payload = self.objects[name]
        if (query or {}).get("ifGenerationMatch", str(generation)) != str(generation):
            self.say(412, b"{}")
            return
        headers = {"X-Goog-Generation": str(generation), "X-Goog-Hash": f"crc32c={checksum(payload)}"}
        first, _, last = (self.headers.get("Range") or "").removeprefix("bytes=").partition("-")
        if first:
            end = min(int(last) + 1 if last else len(payload), len(payload))
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(payload)}"
            self.say(206, payload[int(first) : end], headers)
        else:
            self.say(200, payload, headers)

    def multipart(self, query: dict[str, str], body: bytes) -> None:
        boundary = self.headers["Content-Type"].partition("boundary=")[2].strip("'\"").encode()
        _, about, content, _ = body.split(b"--" + boundary, 3)
        name = query.get("name") or json.loads(about.partition(b"\r\n\r\n")[2])["name"]
        self.write(name, query, content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))

    def write(self, name: str, query: dict[str, str], payload: bytes) -> None:
        with self.lock:
            condition, there = query.get("ifGenerationMatch"), self.objects.get(name, (0, b""))[0]
            if condition is not None and int(condition) != there:
                self.say(412, b'{"error": {"code": 412, "message": "conditionNotMet"}}')
                return
            self.objects[name] = (next(self.count), payload)
        resource = {"kind": "storage#rewriteResponse", "done": True, "resource": self.about(name)} if not query else {}
        self.say(200, json.dumps({**self.about(name), **resource}).encode())

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
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
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
    from itertools import count

    state: dict[str, Any] = {"objects": {}, "uploads": {}, "lock": threading.Lock(), "count": count(1)}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneGoogle", (Google,), state))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", state["objects"]
    server.shutdown()
    server.server_close()
