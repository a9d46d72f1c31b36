"""Whatever is sent to the page, by its own description or against it: no reply says that the server is at a loss."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from lit_align.labelling.app import build_app
from lit_align.labelling.store import Store
from lit_align.labelling.votes import read_votes
from tests.labelling.serving import Visitor, csrf_of, make_campaign, make_groups, serving
from tests.labelling.test_safety import INTRODUCTION

QUICK = settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def send_examples(operation, mode, address, csrf, cookies):
    """The statuses of the replies to generated requests."""
    statuses = set()

    @QUICK
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case):
        if isinstance(case.body, dict) and len(str(case.body)) % 2:
            case.body["csrf"] = csrf  # past the gate, half of the time
        reply = case.call(address, cookies=cookies, allow_redirects=False)
        statuses.add(reply.status_code)

    with suppress(Unsatisfiable):  # nothing wrong can be sent where nothing is taken
        send()
    return statuses


def test_no_request_breaks_the_page(tmp_path):
    schemathesis = pytest.importorskip(
        "schemathesis", reason="needs schemathesis; pip install -e '.[dev]'"
    )
    settings_of_page = {"introduction": INTRODUCTION, "votes": 1000}
    statuses = {}
    with serving(tmp_path / "labels.db", make_groups(50), **settings_of_page) as (store, port):
        described = build_app(Store(store.path), make_campaign(), INTRODUCTION).openapi()
        ada = Visitor(port, store.invite("ada"))
        boss = Visitor(port, store.invite("boss", admin=True))
        annotators_csrf = csrf_of(ada.get("/examples/1"))
        admins_csrf = csrf_of(boss.get("/admin"))
        assert ada.send("/guidelines", csrf=annotators_csrf) == 303
        ada.task()
        cookies = dict(cookie.split("=", 1) for cookie in (ada.cookie, boss.cookie))
        address = f"http://127.0.0.1:{port}"
        for result in schemathesis.openapi.from_dict(described).get_all_operations():
            operation = result.ok()
            is_admins = operation.path.startswith("/admin")
            csrf = admins_csrf if is_admins else annotators_csrf
            for mode in schemathesis.GenerationMode:
                replies = send_examples(operation, mode, address, csrf, cookies)
                statuses.setdefault(operation.label, set()).update(replies)
    assert len(statuses) == sum(len(methods) for methods in described["paths"].values())
    assert max(set().union(*statuses.values())) < 500
    assert {303, 403, 422} & statuses["POST /vote"]
    assert read_votes(store.path)
