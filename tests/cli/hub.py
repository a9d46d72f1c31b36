"""A hub on the loopback interface: the calls with which huggingface_hub creates a repository and commits a folder."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """What was uploaded."""

    token: str = "hf_loopback"
    address: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # large files by their SHA-256
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def commit(self, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.messages.append(value["summary"])
            elif entry["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[value["path"]] = self.objects[value["oid"]]


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                pieces = []
                while size := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def reply(self, content, status=200):
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def is_allowed(self) -> bool:
            if self.headers.get("Authorization") == f"Bearer {hub.token}":
                return True
            self.reply({"error": "Invalid username or password."}, 401)
            return False

        def do_GET(self):
            if not self.is_allowed():
                return
            if self.path == "/api/whoami-v2":
                self.reply({"type": "user", "name": "me", "orgs": []})
            else:
                hub.unknown.append(f"GET {self.path}")
                self.reply({"error": "no such call"}, 404)

        def do_PUT(self):
            data = self.body()
            hub.objects[hashlib.sha256(data).hexdigest()] = data
            self.reply({})

        def do_POST(self):
            data = self.body()
            if not self.is_allowed():
                return
            path = self.path.partition("?")[0]
            if path == "/api/repos/create":
                wanted = json.loads(data)
                name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
                is_private = wanted.get("private") or wanted.get("visibility") == "private"
                hub.private[name] = bool(is_private)
                self.reply({"url": f"{hub.address}/{name}", "name": name})
            elif path == "/api/validate-yaml":
                self.reply({"errors": [], "warnings": []})
            elif "/preupload/" in path:
                files = json.loads(data)["files"]
                self.reply({"files": [self.mode(file["path"]) for file in files]})
            elif path.endswith("/info/lfs/objects/batch"):
                objects = [self.upload(each) for each in json.loads(data)["objects"]]
                self.reply({"transfer": "basic", "objects": objects})
            elif "/commit/" in path:
                hub.commit(data)
                number = f"{len(hub.messages):040x}"
                name = path.removeprefix("/api/models/").partition("/commit/")[0]
                address = f"{hub.address}/{name}/commit/{number}"
                self.reply({"success": True, "commitOid": number, "commitUrl": address})
            else:
                hub.unknown.append(f"POST {self.path}")
                self.reply({"error": "no such call"}, 404)

        def mode(self, path):
            large = path.endswith((".safetensors", ".gguf"))
            return {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
            }

        def upload(self, wanted):
            href = f"{hub.address}/objects/{wanted['oid']}"
            return {**wanted, "actions": {"upload": {"href": href, "header": {}}}}

    return Handler


@contextmanager
def loopback_hub():
    """Serve a hub until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
