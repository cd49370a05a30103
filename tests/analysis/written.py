"""A server that speaks the OpenAI protocol, and the ways in which it may answer."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FIRST, GAP = 0.30, 0.05
TRUE, FALSE = ("0.61", "0.44"), ("0.83", "44")
TEXT = (
    "## Executive summary\n\n", "The best acc of llama is ", "0.61", " and that of qwen is ", "0.44", ". ",
    "There are ", "44", " JSON files. ", "The acc of llama rose to ", "0.83", " <script>alert()</script>",
    " ![x](http://evil/x.png)\n",
)  # fmt: skip
Play = Callable[[Any], None]


@contextmanager
def server(play: Play) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers every POST by `play`; gives its address and the requests."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
            play(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    running = Quiet(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}/v1", seen
    finally:
        running.shutdown()
        running.server_close()


def begin(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Connection", "close")
    handler.end_headers()


def send(handler: Any, delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> None:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": choices,
        **more,
    }
    handler.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
    handler.wfile.flush()


class Streaming:
    """Streams `TEXT` with known pauses, and notes when it really sent what."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        self.began = 0.0

    def __call__(self, handler: Any) -> None:
        self.began = time.perf_counter()
        begin(handler)
        send(handler, {"role": "assistant", "content": ""})
        time.sleep(FIRST)
        for piece in TEXT:
            self.sent.append(time.perf_counter())
            send(handler, {"content": piece})
            time.sleep(GAP)
        send(handler, {}, "stop")
        send(handler, None, usage={"prompt_tokens": 77, "completion_tokens": 25, "total_tokens": 102})
        handler.wfile.write(b"data: [DONE]\n\n")


def stalled(handler: Any) -> None:
    begin(handler)
    send(handler, {"content": "The best "})
    for _ in range(100):  # a server that keeps the connection alive and says nothing
        handler.wfile.write(b": ping\n\n")
        handler.wfile.flush()
        time.sleep(0.1)


def silent(handler: Any) -> None:
    time.sleep(10)


def refusing(handler: Any) -> None:
    body = b'{"error": {"message": "model not found", "type": "not_found"}}'
    handler.send_response(404)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def dying(handler: Any) -> None:
    begin(handler)
    send(handler, {"content": "The best acc of llama is 0.61 and"})
    handler.connection.shutdown(socket.SHUT_RDWR)


def resetting(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"20\r\ndata: {half a chunk")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def nonsense(handler: Any) -> None:
    begin(handler)
    handler.wfile.write(b"data: this is not JSON\n\n")


def wordless(handler: Any) -> None:
    begin(handler)
    send(handler, {"content": " \n"})
    send(handler, {}, "stop")
    handler.wfile.write(b"data: [DONE]\n\n")


def unwilling(handler: Any) -> None:
    begin(handler)
    send(handler, {"refusal": "I cannot help with that"})
    send(handler, {}, "stop")
    handler.wfile.write(b"data: [DONE]\n\n")
