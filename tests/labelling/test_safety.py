"""Nobody gets in, on, or at what is not theirs; and nothing that anybody sends breaks the page."""

import re
import socket
from urllib.parse import quote, urlencode

import pytest

from lit_align.labelling.app import HEADERS, MAX_BODY, build_app
from lit_align.labelling.campaign import OWN_SEGMENTS
from lit_align.labelling.introduction import Introduction, make_examples
from lit_align.labelling.store import Store
from lit_align.labelling.votes import read_votes
from lit_align.types import Group, Pair
from tests.labelling.serving import Visitor, csrf_of, make_campaign, make_groups, serving

EVIL = "'; DROP TABLE votes; -- <script>alert(1)</script> \" \\ %00 ../../etc/passwd"
ANNOTATORS_PAGES = ["/", "/task/1", "/mine", "/guidelines", "/examples/1"]
ADMINS_PAGES = [
    "/admin",
    "/admin/tasks",
    "/admin/tasks?show=disagreements&page=1",
    "/admin/tasks/1",
    "/admin/removal?name=ada",
    "/admin/votes.jsonl",
    "/admin/votes.csv",
    "/admin/argilla.json",
    "/admin/label_studio.json",
    "/admin/groups.jsonl",
    "/admin/groups.jsonl?how=share",
]
VOTE = {"task": 1, "revision": 1, "preference": 1}
ANNOTATORS_FORMS = {"/vote": VOTE, "/guidelines": {}, "/examples/1": VOTE}
ADMINS_FORMS = {
    "/admin/link": {"name": "eve"},
    "/admin/state": {"action": "end"},
    "/admin/tasks": {},
    "/admin/removal": {"name": "ada"},
}
INTRODUCTION = Introduction(
    "# Read this", make_examples([Group("?", ["a", "b"], (Pair(0, 1),))], "compare")
)
FORM = {"content_type": "application/x-www-form-urlencoded"}


@pytest.fixture
def page(tmp_path):
    """A page, and a visitor of each sort."""
    with serving(tmp_path / "labels.db", make_groups(5), introduction=INTRODUCTION) as (
        store,
        port,
    ):
        ada, bob = (Visitor(port, store.invite(name)) for name in ("ada", "bob"))
        for visitor in (ada, bob):
            csrf = csrf_of(visitor.get("/guidelines") + visitor.get("/examples/1"))
            assert visitor.send("/guidelines", csrf=csrf) == 303
        yield store, port, ada, bob, Visitor(port, store.invite("boss", admin=True))


def test_the_lists_of_pages_and_forms_are_complete(page):
    """Each route of the application is in a list above, which the other tests go through."""
    store, _, _, _, _ = page
    described = build_app(Store(store.path), make_campaign(), INTRODUCTION).openapi()["paths"]
    readable, posted = set(), set()
    for path, methods in described.items():
        path = path.replace("{number}", "1")
        readable.update([path] if "get" in methods else [])
        posted.update([path] if "post" in methods else [])
    pages = {path.partition("?")[0] for path in ANNOTATORS_PAGES + ADMINS_PAGES}
    assert readable - {"/in/{token}"} == pages
    assert posted == ANNOTATORS_FORMS.keys() | ADMINS_FORMS.keys()
    segments = {path.split("/")[1] for path in pages | posted} - {""}
    assert segments | {"in", "static"} == OWN_SEGMENTS


def test_without_a_link_nobody_sees_anything(page):
    _, port, ada, _, boss = page
    name, other = (visitor.cookie.partition("=")[0] + "=" for visitor in (ada, boss))
    assert (name[:10], other[:6]) == ("annotator-", "admin-")
    forged = f"{name}{'A' * 43}; {other}{'A' * 43}"
    swapped = (
        ada.cookie.replace("annotator-", "admin-"),
        boss.cookie.replace("admin-", "annotator-"),
    )
    for cookie in ("", name, f"{name}%00; {other}'", forged):
        visitor = Visitor(port)
        visitor.cookie = cookie
        pages = ANNOTATORS_PAGES + ADMINS_PAGES
        assert {visitor.ask("GET", path)[0] for path in pages} == {401}
        for path, fields in {**ANNOTATORS_FORMS, **ADMINS_FORMS}.items():
            assert visitor.send(path, csrf="", **fields) == 401
    for cookie in (ada.cookie, swapped[0]):
        visitor = Visitor(port)
        visitor.cookie = cookie
        assert {visitor.ask("GET", path)[0] for path in ADMINS_PAGES} == {401}
        for path, fields in ADMINS_FORMS.items():
            assert visitor.send(path, csrf="", **fields) == 401
    for cookie in (boss.cookie, swapped[1]):
        visitor = Visitor(port)
        visitor.cookie = cookie
        assert {visitor.ask("GET", path)[0] for path in ANNOTATORS_PAGES} == {401}
        for path, fields in ANNOTATORS_FORMS.items():
            assert visitor.send(path, csrf="", **fields) == 401
    for token in ("", "x", "A" * 43, quote(EVIL, safe=""), "%00", "%ff"):
        assert Visitor(port).ask("GET", f"/in/{token}")[0] == 404
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert ada.ask("GET", path)[0] == 404


@pytest.mark.parametrize("path", ["/mine/", "/admin/", "/admin/tasks/", "/guidelines/"])
def test_no_redirect_goes_where_a_request_says(page, path):
    _, _, ada, _, boss = page
    for visitor in (ada, boss):
        _, headers, text = visitor.ask("GET", path, host="elsewhere.example")
        assert "elsewhere" not in f"{headers}{text}"


def test_a_form_from_elsewhere_is_refused(page):
    store, _, ada, bob, boss = page
    form = ada.task()
    for csrf in ("x", "é", "0" * 64, bob.task()["csrf"]):
        assert ada.send(**{**form, "csrf": csrf}, preference=1) == 403
    assert ada.send(task=form["task"], revision=1, preference=1) == 422
    for path, fields in ADMINS_FORMS.items():
        assert boss.send(path, csrf=form["csrf"], **fields) == 403
    for visitor, home in ((ada, "/"), (boss, "/admin")):  # each in the words of what they do
        body = urlencode({"csrf": "x", "name": "eve", **VOTE})
        text = visitor.ask("POST", "/vote" if home == "/" else "/admin/link", body, **FORM)[2]
        assert f'href="{home}">Go on' in text
        assert ("repeat your answer" in text) == (visitor is ada)
    for path, fields in ANNOTATORS_FORMS.items():
        assert ada.send(path, csrf=csrf_of(boss.get("/admin")), **fields) == 403
    assert read_votes(store.path).history == []
    assert not store.has_ended
    assert ada.ask("GET", f"/vote?csrf={form['csrf']}&task=1&revision=1&preference=1")[0] == 405
    assert ada.send(**form, preference=1) == 303


def test_every_reply_tells_the_browser_to_be_strict(page):
    _, port, ada, _, boss = page
    for visitor, path in (
        (ada, "/"),
        (ada, "/nowhere"),
        (Visitor(port), "/"),
        (ada, "/static/label.js"),
        *((ada, path) for path in ANNOTATORS_PAGES),
        *((boss, path) for path in ADMINS_PAGES),
    ):
        _, headers, text = visitor.ask("GET", path)
        assert HEADERS.items() <= headers.items()
        assert "server" not in headers or headers["server"] == "uvicorn"
        if path != "/static/label.js":
            assert not re.search(
                r"<script(?! src=\"/static/)|\son\w+=|style=|javascript:|https?://", text
            )
    assert "unsafe" not in HEADERS["content-security-policy"]
    assert "default-src 'none'" in HEADERS["content-security-policy"]


def test_what_anybody_writes_is_inert(tmp_path):
    hostile = Group(
        EVIL, [f"{EVIL} one", f"{EVIL} <img src=x onerror=alert(1)> [x](javascript:alert(1))"]
    )
    guidelines = f"{EVIL} <img src=x onerror=alert(1)> [x](javascript:alert(1)) ![x](https://x)"
    example = hostile._replace(pairs=(Pair(0, 1),), extra={"explanation": guidelines})
    introduction = Introduction(guidelines, make_examples([example], "compare"))
    with serving(tmp_path / "labels.db", [hostile], introduction=introduction, question=EVIL) as (
        store,
        port,
    ):
        ada, boss = (
            Visitor(port, store.invite(EVIL)),
            Visitor(port, store.invite("boss", admin=True)),
        )
        guide, example_page = ada.get("/guidelines"), ada.get("/examples/1")
        csrf = csrf_of(example_page)
        ballot = urlencode({"csrf": csrf, **VOTE})
        checked = ada.ask("POST", "/examples/1", ballot, **FORM)[2]
        assert "right answer" in checked
        assert ada.send("/guidelines", csrf=csrf) == 303
        form = ada.task()
        assert ada.send(**form, preference=1, note=EVIL) == 303
        pages = [ada.get("/task/1"), ada.get("/mine"), boss.get("/admin"), guide, example_page]
        pages += [checked, boss.get("/admin/tasks"), boss.get("/admin/tasks/1")]
        pages.append(boss.get(f"/admin/removal?name={quote(EVIL, safe='')}"))
        csrf = csrf_of(pages[2])
        body = f"csrf={csrf}&name={quote(EVIL)}"
        pages += [
            boss.ask("POST", "/admin/link", body, **FORM)[2],
            ada.ask("GET", f"/{quote('<script>alert(1)')}")[2],
        ]
        for text in pages:
            assert not re.search(r"<script(?! src=\"/static/)|<img|<a [^>]*javascript", text)
        # the campaign's own page and that of an address that leads nowhere repeat nothing of it
        assert sum("&lt;script&gt;" not in text for text in pages) <= 2
        (vote,) = read_votes(store.path).votes
        assert (vote.annotator, vote.note) == (EVIL, EVIL)


def test_a_page_does_not_tell_what_is_what(tmp_path):
    """Twenty people see gold tasks and others, each in either order: but for the texts, the pages are alike."""
    gold = [
        group._replace(pairs=(Pair(0, 1),), extra={"model": "secret"})
        for group in make_groups(12)[8:]
    ]
    with serving(tmp_path / "labels.db", make_groups(8), gold, gold_every=2, votes=50) as (
        store,
        port,
    ):
        pages, seen = [set(), set()], set()
        for k in range(20):
            visitor = Visitor(port, store.invite(f"w{k}"))
            for alike in pages:
                text, said, form = visitor.get(), visitor.shown(), visitor.task()
                seen.add(tuple(said))
                for place, one in enumerate(said):
                    text = text.replace(one, f"<{place}>")
                alike.add(
                    re.sub(
                        r'name="csrf" value="\w+"|Question \d+|\d+ s each · about \d+ s left',
                        "",
                        text,
                    )
                )
                assert visitor.send(**form, preference=1) == 303
        assert [len(alike) for alike in pages] == [1, 1]
        assert any(one == pair[::-1] for one in seen for pair in seen)
        assert {one[0].split(".")[0] in ("Answer 8", "Answer 9") for one in seen} == {True, False}


def test_paths_lead_nowhere_else(page):
    _, _, ada, _, _ = page
    for path in (
        "../store.py",
        "%2e%2e/store.py",
        "..%2fstore.py",
        "%2e%2e%2f%2e%2e%2fcli.py",
        "/etc/passwd",
        "..\\store.py",
        "",
    ):
        assert ada.ask("GET", f"/static/{path}")[0] in (404, 405)


def test_a_body_has_an_end(page):
    store, port, ada, _, _ = page
    form = ada.task()
    assert ada.send(**form, preference=1, note="x" * (MAX_BODY + 1)) == 413
    with socket.create_connection(("127.0.0.1", port), 10) as line:
        line.sendall(b"POST /vote HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        sent, reply = 0, b""
        line.settimeout(0.05)
        while not reply and sent < 100 * MAX_BODY:  # without an end
            line.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
            sent += 0x1000
            try:
                reply = line.recv(4096)
            except TimeoutError:
                continue
    assert reply.startswith(b"HTTP/1.1 413")
    assert ada.send(**form, preference=1, note="x" * 2001) == 422
    assert read_votes(store.path).history == []


def test_an_annotator_sees_and_changes_only_what_is_theirs(page):
    store, _, ada, bob, _ = page
    form = ada.task()
    assert ada.send(**form, preference=1, note="a secret of ada") == 303
    assert bob.ask("GET", f"/task/{form['task']}")[0] == 404
    own = bob.task()
    assert bob.send(csrf=own["csrf"], task=2, revision=1, preference=1) == (
        303 if own["task"] == "2" else 409
    )
    assert "a secret of ada" not in bob.get("/mine") + bob.get()
    assert bob.send(csrf=own["csrf"], task=5, revision=1, preference=1) == 409
    (vote,) = [vote for vote in read_votes(store.path).history if vote.note]
    assert vote.annotator == "ada"


@pytest.mark.parametrize("ask", ["compare", "rank", "rate", "thumbs"])
def test_an_answer_of_another_kind_is_not_recorded(tmp_path, ask):
    fields = {
        "compare": {"preference": 1},
        "rank": {"place": ["0-1", "1-2"]},
        "rate": {"rating": 3},
        "thumbs": {"up": "true"},
    }
    wrong = [
        {},
        {"preference": 4},
        {"rating": 0},
        {"up": "maybe"},
        {"place": ["0-1", "0-2"]},
        {"place": ["0-x", "1-1"]},
        {"place": ["0-1"]},
        {"place": ["0-3", "1-1"]},
        {"place": ["0-1", "1-9999999999"]},
    ]
    with serving(tmp_path / "labels.db", make_groups(1), ask=ask) as (store, port):
        visitor = Visitor(port, store.invite("ada"))
        form = visitor.task()
        for kind, more in fields.items():
            if kind != ask:
                assert visitor.send(**form, **more) == 422
        for more in wrong:
            assert visitor.send(**form, **more) == 422
        for task, revision in (
            ("0", 1),
            ("-1", 1),
            (str(2**63), 1),
            ("x", 1),
            (form["task"], 0),
            (form["task"], 2**40),
        ):
            assert (
                visitor.send(**{**form, "task": task, "revision": revision}, **fields[ask]) == 422
            )
        assert read_votes(store.path).history == []
        assert visitor.send(**form, **fields[ask]) == 303
