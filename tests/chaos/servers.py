"""Servers that fail on demand: one of files with ranges, and a proxy before another HTTP server."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import pytest
from moto.server import ThreadedMotoServer

Fault = Callable[[str, str], str]
"""Names the fault of a request, by its method and path; empty for none."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer
    body = b""

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        # Also of a request that is refused: what is left unread would be taken for the next one.
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size) if size else b""
        fault = self.server.fault(self.command, self.path)
        if fault:
            self.server.faults[fault] += 1
        if fault == "hung":
            time.sleep(120)
            return
        if fault == "slow":
            time.sleep(2)
        if fault == "reset":
            self._reset()
            return
        if fault.isdigit():
            self._answer(int(fault), b"no", {"Retry-After": "1"} if fault == "503" else {})
            return
        status, headers, body = self.server.respond(self)
        if fault == "garbled":
            body = bytes(len(body))
        if fault == "lost answer":
            self._reset()
        elif fault in ("truncated", "reset in the middle"):
            self._head(status, headers, len(body))
            self.wfile.write(body[: len(body) // 2])
            self._reset()
        else:
            self._answer(status, body, headers)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _head(self, status: int, headers: dict[str, str], size: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", headers.get("Content-Length", str(size)))
        self.end_headers()

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, headers, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True


class FaultyServer(ThreadingHTTPServer):
    """An HTTP server whose answers a test can spoil."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault: Fault = lambda _method, _path: ""
        self.faults: Counter[str] = Counter()
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass

    def respond(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        raise NotImplementedError

    @contextmanager
    def running(self) -> Iterator[FaultyServer]:
        thread = threading.Thread(target=self.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()


class FileServer(FaultyServer):
    """Serves a folder, with ranges, as a server of COGs does."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def respond(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        self.requests += 1
        path = self._folder / request.path.split("?")[0].lstrip("/")
        if not path.is_file():
            return 404, {}, b"no such file"
        data = path.read_bytes()
        asked = re.match(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if not asked:
            return 200, {"Accept-Ranges": "bytes"}, data
        first, last = int(asked[1]), int(asked[2] or len(data) - 1)
        where = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
        return 206, {"Content-Range": where, "Accept-Ranges": "bytes"}, data[first : last + 1]


class Proxy(FaultyServer):
    """Passes requests on to another HTTP server; the host that the client signed stays."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def respond(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        self.requests += 1
        assert isinstance(request, _Handler)
        body = request.body or None
        peer = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        headers = dict(request.headers.items())
        peer.request(request.command, request.path, body=body, headers=headers)
        answer = peer.getresponse()
        data = answer.read()
        found = dict(answer.getheaders())
        if request.command != "HEAD":
            found.pop("Content-Length", None)
        peer.close()
        return answer.status, found, data


def until(moment: float, fault: str) -> Fault:
    """A fault of every request until a time of the monotonic clock."""
    return lambda _method, _path: fault if time.monotonic() < moment else ""


def first(count: int, fault: str, path: str = "") -> Fault:
    """A fault of the first requests whose path holds a text."""
    left = [count]
    guard = threading.Lock()

    def decide(_method: str, where: str) -> str:
        with guard:
            if path in where and left[0] > 0:
                left[0] -= 1
                return fault
        return ""

    return decide


def every(count: int, fault: str) -> Fault:
    """A fault of one in `count` requests."""
    seen = [0]
    guard = threading.Lock()

    def decide(_method: str, _where: str) -> str:
        with guard:
            seen[0] += 1
            return "" if seen[0] % count else fault

    return decide


@contextmanager
def faulty_s3(patch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """An S3 server with the bucket `archive` behind a proxy, and the environment that finds it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port()[1])
    settings = {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        patch.setenv(name, value)
    with proxy.running():
        # Servers of one process share what is stored.
        urlopen(Request(f"{proxy.url}/moto-api/reset", method="POST")).close()
        boto3.client("s3").create_bucket(Bucket="archive")
        yield proxy
    server.stop()
