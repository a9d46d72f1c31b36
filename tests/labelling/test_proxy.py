"""The page behind a reverse proxy, under a path that the proxy passes on or leaves out."""

import http.client
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from lit_align.labelling.introduction import Introduction, make_examples
from lit_align.labelling.votes import read_votes
from lit_align.types import Group, Pair
from tests.labelling.serving import Visitor, make_groups, serving

PREFIX = "/team1"
PUBLIC = f"https://label.example.org{PREFIX}"
EXAMPLE = Group("?", ["a", "b"], (Pair(0, 1),))
INTRODUCTION = Introduction("Read *this*.", make_examples([EXAMPLE], "compare"))
PAGES = {
    "annotator": ["/", "", "/task/1", "/mine", "/guidelines", "/examples/1", "/nowhere"],
    "admin": [
        "/admin",
        "/admin/tasks",
        "/admin/tasks/1",
        "/admin/removal?name=ada",
        "/admin/votes.csv",
    ],
}


@contextmanager
def proxying(port, strips):
    """The port of a proxy that serves the page under ``PREFIX`` and nothing beside it, with another host's name."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self):
            if self.path != PREFIX and not self.path.startswith(f"{PREFIX}/"):
                self.send_error(404)
                return
            path = self.path.removeprefix(PREFIX) if strips else self.path
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {name.lower(): value for name, value in self.headers.items()}
            line.request(self.command, path or "/", body, {**headers, "host": "inside.local"})
            reply = line.getresponse()
            content = reply.read()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("content-length", "date", "connection"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            line.close()

        do_GET = do_POST = forward

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("strips", [True, False], ids=["stripped", "kept"])
def test_everything_stays_under_the_prefix(tmp_path, strips):
    with (
        serving(
            tmp_path / "l.db", make_groups(2), introduction=INTRODUCTION, public_url=PUBLIC
        ) as (store, inside),
        proxying(inside, strips) as port,
    ):
        _, headers, _ = Visitor(port, prefix=PREFIX).ask("GET", f"/in/{store.invite('eve')}")
        assert headers["location"] == f"{PREFIX}/"
        assert {f"Path={PREFIX}", "Secure", "HttpOnly"} <= set(headers["set-cookie"].split("; "))
        ada = Visitor(port, store.invite("ada"), PREFIX)
        boss = Visitor(port, store.invite("boss", admin=True), PREFIX)
        status, headers, _ = ada.ask("GET", "/")
        assert (status, headers["location"]) == (303, f"{PREFIX}/guidelines")
        csrf = re.search(r'name="csrf" value="(\w+)"', ada.get("/examples/1"))[1]
        assert ada.send("/guidelines", csrf=csrf) == 303
        assert ada.send(**ada.task(), preference=1) == 303

        addresses = set()
        for visitor, paths in ((ada, PAGES["annotator"]), (boss, PAGES["admin"])):
            for path in paths:
                status, headers, text = visitor.ask("GET", path)
                assert status == (404 if path == "/nowhere" else 200), path
                addresses.update(re.findall(r'(?:href|src|action)="([^"]*)"', text))
                assert "inside.local" not in f"{headers}{text}"
        assert {urlsplit(address).path.split("/")[1] for address in addresses} == {PREFIX[1:]}
        for address in addresses:  # what a page leads to is there, even if it only takes forms
            path = address.removeprefix(PREFIX)
            visitor = boss if path.startswith("/admin") else ada
            assert visitor.ask("GET", path.replace("&amp;", "&"))[0] != 404, address

        csrf = re.search(r'name="csrf" value="(\w+)"', boss.get("/admin"))[1]
        form = {"content_type": "application/x-www-form-urlencoded"}
        reply = boss.ask("POST", "/admin/link", f"csrf={csrf}&name=bob", **form)[2]
        token = re.search(rf"{PUBLIC}/in/([\w-]+)<", reply)[1]
        assert Visitor(port, token, PREFIX).get("/guidelines")
        _, headers, _ = boss.ask("POST", "/admin/state", f"csrf={csrf}&action=end", **form)
        assert headers["location"] == f"{PREFIX}/admin"
        assert "The campaign has ended" in ada.get("/")
    assert len(read_votes(tmp_path / "l.db").votes) == 1
