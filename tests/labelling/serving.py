"""A page that is served over real HTTP, and visitors who use it without a browser."""

import http.client
import re
import threading
import time
from contextlib import contextmanager
from html import unescape
from urllib.parse import urlencode

import uvicorn

from lit_align.labelling.app import build_app
from lit_align.labelling.campaign import Campaign
from lit_align.labelling.introduction import NO_INTRODUCTION
from lit_align.labelling.store import Store
from lit_align.types import Group

CHATTY = [{"role": "user", "content": "What do bees make?"}]


def make_groups(count: int, size: int = 2) -> list[Group]:
    """Groups that are all different."""
    return [
        Group(f"Question {k}?", [f"Answer {k}.{i}" for i in range(size)], source=f"rows:{k}")
        for k in range(count)
    ]


def make_campaign(**settings) -> Campaign:
    """Settings of a campaign that nobody else listens to."""
    return Campaign(**{"gold_every": 1000, **settings})


@contextmanager
def serving(path, groups=(), gold=(), introduction=NO_INTRODUCTION, **settings):
    """The store and port of a page in a thread of its own."""
    campaign = make_campaign(**settings)
    store = Store(path, campaign.votes, campaign.gold_every, campaign.session_days)
    kind = campaign.ask or "compare"
    store.add_tasks(groups, kind, uncertainty=campaign.uncertainty)
    store.add_tasks(gold, kind, gold=True)
    app = build_app(store, campaign, introduction)
    # a visitor's connection outlives the work of others, however slow the machine
    options = {"access_log": False, "timeout_keep_alive": 60}
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield store, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def csrf_of(text: str) -> str:
    """The token in the forms of a page."""
    return re.search(r'name="csrf" value="(\w+)"', text)[1]


class Visitor:
    """Somebody with a cookie, on one connection.

    Args:
        port: of the page, on this machine.
        token: of the link to come in by; None comes in by none.
        prefix: in front of every path.
    """

    def __init__(self, port: int, token: str | None = None, prefix: str = "") -> None:
        self.prefix = prefix
        self.line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.cookie = ""
        if token is not None:
            status, headers, _ = self.ask("GET", f"/in/{token}")
            assert status == 303, status
            self.cookie = headers["set-cookie"].partition(";")[0]

    def ask(self, method: str, path: str, body: bytes | str | None = None, **headers: str):
        """Status, headers and text of one reply; nothing is followed."""
        sent = {
            "cookie": self.cookie,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        self.line.request(method, self.prefix + path, body, sent)
        reply = self.line.getresponse()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read().decode()

    def get(self, path: str = "/") -> str:
        """A page that is there."""
        status, _, text = self.ask("GET", path)
        assert status == 200, (status, text)
        return text

    def send(self, path: str = "/vote", **fields) -> int:
        """Status of a form that is sent."""
        body = urlencode(fields, doseq=True)
        return self.ask("POST", path, body, content_type="application/x-www-form-urlencoded")[0]

    def task(self, path: str = "/") -> dict[str, str]:
        """The hidden fields of the task that is shown; empty if there is none."""
        found = re.search(r'id="vote".*?</form>', self.get(path), re.DOTALL)
        return (
            dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', found[0]))
            if found
            else {}
        )

    def shown(self, path: str = "/") -> list[str]:
        """The responses in the order in which they are shown, as text."""
        texts = re.findall(
            r'<div class="text".*?<div class="said" dir="auto">(.*?)</div>',
            self.get(path),
            re.DOTALL,
        )
        return [unescape(re.sub(r"<[^>]*>", "", text)).strip() for text in texts]
