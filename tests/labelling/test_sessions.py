"""Links, sessions and cookies: who comes in, for how long, and under which address."""

import hashlib
import sqlite3
from contextlib import closing
from urllib.parse import urlencode

import pytest

from lit_align.errors import ConfigError
from lit_align.labelling.campaign import Campaign
from lit_align.labelling.store import Store
from tests.labelling.serving import Visitor, csrf_of, make_groups, serving
from tests.labelling.test_safety import FORM


def test_one_browser_works_on_two_campaigns_of_one_host(tmp_path):
    with (
        serving(tmp_path / "one.db", make_groups(2)) as (one, first),
        serving(tmp_path / "two.db", make_groups(2)) as (two, second),
    ):
        ada, bob = Visitor(first, one.invite("ada")), Visitor(second, two.invite("bob"))
        for visitor in (ada, bob):  # a browser sends what it has to every port
            visitor.cookie = f"{ada.cookie}; {bob.cookie}"
            assert visitor.ask("GET", "/mine")[0] == 200


def test_the_token_is_exchanged_for_a_cookie_and_logged_nowhere(tmp_path, capfd, caplog):
    with serving(tmp_path / "labels.db", make_groups(1)) as (store, port):
        token = store.invite("ada")
        _, headers, _ = Visitor(port).ask("GET", f"/in/{token}")
        assert headers["location"] == "/"
        assert {"HttpOnly", "SameSite=lax"} <= set(headers["set-cookie"].split("; "))
        assert token not in str(headers)
        assert Visitor(port).ask("POST", f"/in/{token}")[0] == 405
    assert token not in "".join(capfd.readouterr()) + caplog.text


def test_a_session_ends_after_its_days(tmp_path):
    day = 86400
    with serving(tmp_path / "labels.db", make_groups(1), session_days=2) as (store, port):
        token = store.invite("ada")
        ada = Visitor(port, token)
        assert ada.ask("GET", "/")[0] == 200
        store.db.execute("UPDATE sessions SET opened = opened - ?", (1.99 * day,))
        assert ada.ask("GET", "/")[0] == 200
        store.db.execute("UPDATE sessions SET opened = opened - ?", (0.02 * day,))
        assert ada.ask("GET", "/")[0] == 401
        again = Visitor(port, token)  # which also removes what is over
        assert again.ask("GET", "/")[0] == 200
        assert store.fetch_one("SELECT count(*) FROM sessions") == (1,)


def test_sessions_of_an_older_file_are_over(tmp_path):
    path = tmp_path / "labels.db"
    Store(path).invite("ada")
    with closing(sqlite3.connect(path)) as older:
        older.execute("ALTER TABLE sessions DROP COLUMN opened")
        older.execute("INSERT INTO sessions VALUES (?, 1)", (hashlib.sha256(b"s").hexdigest(),))
        older.commit()
    store = Store(path)
    store.invite("ada")
    assert store.session_person("s") is None
    secret, _ = store.open_session(store.invite("ada"))
    assert store.session_person(secret) == 1


def test_links_do_not_say_what_a_request_says(tmp_path):
    for options, address in (
        ({"port": 9}, "http://127.0.0.1:9/in/"),
        ({"public_url": "https://labels.example.org/"}, "https://labels.example.org/in/"),
    ):
        with serving(tmp_path / f"{len(address)}.db", make_groups(1), **options) as (store, port):
            boss = Visitor(port, store.invite("admin", admin=True))
            csrf = csrf_of(boss.get("/admin"))
            body = urlencode({"csrf": csrf, "name": "ada"})
            text = boss.ask("POST", "/admin/link", body, host="elsewhere.example", **FORM)[2]
            assert address in text
            assert "elsewhere" not in text


def test_cookies_of_a_site_with_https_are_sent_over_https_only(tmp_path):
    with serving(tmp_path / "a.db", make_groups(1), public_url="https://a.example") as (
        store,
        port,
    ):
        headers = Visitor(port).ask("GET", f"/in/{store.invite('ada')}")[1]
        assert "Secure" in headers["set-cookie"].split("; ")


@pytest.mark.parametrize(
    "address",
    [
        *(
            "labels.example.org",
            "ftp://a",
            "https://u@a",
            "http://a/b?c",
            "http://a/b#c",
            "http://",
        ),
        *(
            "http://a/b c",
            "http://a/%2e",
            "http://a/../b",
            "http://a/b/..",
            "http://a//b",
            "http://a:x",
        ),
        *("http://a/admin", "http://a/task/team1", 'http://a/"'),
    ],
)
def test_a_public_url_is_a_site_or_a_folder_on_it(address):
    with pytest.raises(ConfigError, match="public_url is"):
        Campaign(public_url=address)
