"""A server on this machine that speaks as OpenAI's does, and fails as it is told."""

import gzip
import json
import threading
from collections import Counter, defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SHORT = 3.0  # seconds that a test waits; a busy machine needs a part of it


class Faulty(ThreadingHTTPServer):
    """Answers each question after the faults that are planned for it; what it answered whole, it bills.

    Args:
        faults: a question, by a part of it, → what happens at each attempt until it is answered: a status, ``slow``,
            ``half``, ``nonsense``, ``empty``, ``drip`` (a blank now and then, before the answer), ``drip headers``,
            ``huge`` or ``packed``, or a pair: a changed field of the reply, and its value.
        say: the answer to a question.
    """

    daemon_threads = True

    def __init__(self, faults=None, say=lambda question: "A", top=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults = defaultdict(list, {key: list(plan) for key, plan in (faults or {}).items()})
        self.say, self.top, self.lock, self.finish = say, top, threading.Lock(), "stop"
        self.calls, self.billed, self.keys = Counter(), Counter(), defaultdict(set)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question, server = asked["messages"][0]["content"], self.server
        with server.lock:
            server.calls[question] += 1
            server.keys[question].add(self.headers["idempotency-key"])
            plan = next((plan for part, plan in server.faults.items() if part in question), [])
            fault = plan.pop(0) if plan else None
        if isinstance(fault, int):
            return self._send(
                fault, b'{"error": {"message": "as planned"}}', retry=70 if fault == 429 else 0
            )
        if fault == "quota":
            return self._send(429, b"{}", retry=86400)
        if fault in ("drip", "drip headers"):
            return self._drip(fault == "drip headers")
        if isinstance(fault, str) and fault.startswith("http"):
            return self._redirect(fault)
        if fault == "slow":
            threading.Event().wait(1.5 * SHORT)
        whole = self._whole(question, "logprobs" in asked and server.top)
        if isinstance(fault, dict):
            whole = json.dumps({**json.loads(whole), **fault}).encode()
        body = {
            "half": whole[: len(whole) // 2],
            "nonsense": b"<html>busy</html>",
            "empty": b'{"choices": []}',
            "huge": whole + b" " * (16 * 2**20),
            "packed": gzip.compress(whole),
        }.get(str(fault), whole)
        if fault in (None, "unseen"):
            with server.lock:
                server.billed[question] += 1
        return self._send(
            200,
            body,
            kind="text/html" if fault == "nonsense" else "application/json",
            packed=fault == "packed",
        )

    def _drip(self, headers):
        """Send a byte often enough that no pause between two of them is long."""
        self.send_response(200)
        self.send_header("content-type", "application/json")
        if not headers:
            self.send_header("content-length", "1000")
            self.end_headers()
        else:
            self.flush_headers()
            self.wfile.write(b"x-slow: ")
        try:
            for _ in range(100):
                self.wfile.write(b"a" if headers else b" ")
                self.wfile.flush()
                threading.Event().wait(SHORT / 5)
        except OSError:
            self.close_connection = True  # the client has gone

    def _redirect(self, target):
        self.send_response(307)
        self.send_header("location", target)
        self.send_header("content-length", "0")
        self.end_headers()

    def _whole(self, question, top):
        choice = {
            "index": 0,
            "finish_reason": self.server.finish,
            "message": {"role": "assistant", "content": None},
        }
        choice["message"]["content"] = self.server.say(question)
        if top:
            likely = [{"token": token, "logprob": p, "bytes": None} for token, p in top]
            choice["logprobs"] = {"content": [{**likely[0], "top_logprobs": likely}]}
        usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
        about = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
        return json.dumps({**about, "choices": [choice], "usage": usage}).encode()

    def _send(self, status, body, kind="application/json", retry=0, packed=False):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if packed:
            self.send_header("content-encoding", "gzip")
        if retry:
            self.send_header("retry-after", str(retry))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing."""


@contextmanager
def serving(*args, **kwargs):
    """The server, while it runs."""
    server = Faulty(*args, **kwargs)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
