"""The web page: a task at a time for annotators, figures and exports for whoever runs the campaign."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Form, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from markdown_it import MarkdownIt
from markupsafe import Markup
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as Refusal

from lit_align.data.formats.groups import as_row
from lit_align.labelling import aggregation
from lit_align.labelling.agreement import overview
from lit_align.labelling.campaign import Campaign
from lit_align.labelling.store import Stale, Store, Task
from lit_align.types import Text

HERE = Path(__file__).parent
MAX_BODY = 64 * 1024  # bytes
NAME = Form(max_length=100, pattern=r"^[^\x00-\x1f]*\S[^\x00-\x1f]*$")
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
# what a model wrote is shown as it is meant, and never as HTML, a link or a picture
WRITTEN = MarkdownIt("js-default", {"html": False, "breaks": True}).disable(
    ["image", "link", "autolink", "code"]
)
# the headings of a response are none of the page's
WRITTEN.add_render_rule("heading_open", lambda *_: '<p class="heading">')
WRITTEN.add_render_rule("heading_close", lambda *_: "</p>")
How = Literal["majority", "share", "dawid_skene"]
Number = Annotated[int, Field(ge=1, lt=2**63)]


class Ballot(BaseModel):
    """What the form of a task sends; what is chosen refers to the responses as they are shown."""

    csrf: Annotated[str, Field(max_length=100)]
    task: Number
    revision: Annotated[int, Field(ge=1, lt=2**31)]
    verdict: Literal["vote", "skip", "undo"] = "vote"
    preference: Annotated[int | None, Field(ge=-3, le=3)] = None
    place: Annotated[
        list[Annotated[str, Field(pattern="^[0-9]{1,3}-[0-9]{1,3}$")]], Field(max_length=100)
    ] = []
    rating: Annotated[int | None, Field(ge=1, le=7)] = None
    up: bool | None = None
    flag: Annotated[list[str], Field(max_length=100)] = []
    note: Annotated[str, Field(max_length=2000)] = ""

    def answer(self, task: Task, flags: Iterable[str]) -> dict[str, Any]:
        """What it says of a task; raises what FastAPI does if that is no answer to it."""
        given = {
            int(shown): int(place)
            for shown, _, place in (entry.partition("-") for entry in self.place)
        }
        answers: dict[str, dict[str, Any]] = {
            "compare": {"preference": self.preference},
            "rank": {"places": [given.get(k, 0) for k in range(len(task.order))]},
            "rate": {"rating": self.rating, "flags": {flag: flag in self.flag for flag in flags}},
            "thumbs": {"up": self.up},
        }
        said = answers[task.kind]
        if None in said.values() or not all(
            0 < place <= len(task.order) for place in said.get("places", [])
        ):
            raise RequestValidationError([])
        return said


def paragraphs(text: Text) -> list[tuple[str, Markup]]:
    """Who speaks, where more than one does, and what is said, as HTML that only we have written."""
    turns = (
        [("", text)]
        if isinstance(text, str)
        else [(turn["role"], turn["content"]) for turn in text]
    )
    return [(role if len(turns) > 1 else "", Markup(WRITTEN.render(said))) for role, said in turns]


def _whose(role: str) -> Callable[[Request], int]:
    def person(request: Request) -> int:
        secret = request.cookies.get(_cookie(request, role), "")
        found: int | None = request.app.state.store.person(secret, admin=role == "admin")
        if found is None:
            raise HTTPException(401)
        return found

    return person


Annotator = Annotated[int, Depends(_whose("annotator"))]
Admin = Annotated[int, Depends(_whose("admin"))]


def build(store: Store, campaign: Campaign) -> FastAPI:
    """The page of a campaign, on top of the store that keeps it all."""
    app = FastAPI(title="lit-align label", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store = store
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    templates = Jinja2Templates(directory=HERE / "templates")
    templates.env.filters["paragraphs"] = paragraphs

    def page(request: Request, template: str, code: int = 200, **shown: Any) -> Response:
        return templates.TemplateResponse(
            request, f"{template}.html", {"campaign": campaign, **shown}, code
        )

    def framed(request: Request, who: int, template: str, **shown: Any) -> Response:
        """With the line on top: how far this person is, and what can be taken back."""
        (done, left, seconds), last = store.progress(who), store.mine(who, 1)
        shown |= {"done": done, "left": left, "seconds": seconds, "last": last and last[0]}
        return page(request, template, csrf=_csrf(request, "annotator"), **shown)

    @app.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse bodies that are large, or that do not say how large they are; add headers to every reply."""
        length = request.headers.get("content-length", "0")
        large = (
            "transfer-encoding" in request.headers
            or not length.isdecimal()
            or int(length) > MAX_BODY
        )
        reply = (
            Response("too large", 413, {"connection": "close"}) if large else await go_on(request)
        )
        reply.headers.update(HEADERS)
        return reply

    @app.exception_handler(Refusal)
    @app.exception_handler(RequestValidationError)
    @app.exception_handler(Stale)
    def refused(request: Request, error: Exception) -> Response:
        stale = 404 if request.method == "GET" else 409  # what one was never shown is not there
        status = (
            error.status_code
            if isinstance(error, Refusal)
            else stale
            if isinstance(error, Stale)
            else 422
        )
        return page(request, "refused", status, status=status, told=str(error))

    @app.get("/in/{token}")
    def come_in(token: str, request: Request) -> Response:
        """Exchange the link for a cookie, so that the token is in no address that is copied or logged later."""
        if (found := store.enter(token)) is None:
            raise HTTPException(404)
        secret, role, home = found[0], *(("admin", "/admin") if found[1] else ("annotator", "/"))
        reply, name, secure = (
            RedirectResponse(home, 303),
            _cookie(request, role),
            request.url.scheme == "https",
        )
        reply.set_cookie(
            name, secret, max_age=90 * 86400, httponly=True, samesite="lax", secure=secure
        )
        return reply

    @app.get("/")
    def next_task(request: Request, who: Annotator) -> Response:
        task = store.next(who)
        return framed(request, who, "task", task=task) if task else framed(request, who, "done")

    @app.get("/task/{number}")
    def one_task(number: Number, request: Request, who: Annotator) -> Response:
        return framed(request, who, "task", task=store.open(who, number))

    @app.post("/vote")
    def vote(ballot: Annotated[Ballot, Form()], request: Request, who: Annotator) -> Response:
        _same_page(ballot.csrf, request, "annotator")
        task = store.task(who, ballot.task)
        answer = ballot.answer(task, campaign.flags) if ballot.verdict == "vote" else {}
        store.record(who, ballot.task, ballot.revision, ballot.verdict, answer, ballot.note.strip())
        return RedirectResponse(f"/task/{ballot.task}" if ballot.verdict == "undo" else "/", 303)

    @app.get("/mine")
    def mine(request: Request, who: Annotator) -> Response:
        rows = [(task, verdict, json.loads(prompt)) for task, _, verdict, prompt in store.mine(who)]
        return framed(request, who, "mine", rows=rows)

    @app.get("/admin")
    def figures(request: Request, who: Admin) -> Response:
        found = overview(aggregation.read(store.path), campaign.votes)
        return page(
            request,
            "admin",
            figures=found,
            hows=list(aggregation.HOW),
            csrf=_csrf(request, "admin"),
        )

    @app.post("/admin/link")
    def link(
        csrf: Annotated[str, Form()], name: Annotated[str, NAME], request: Request, who: Admin
    ) -> Response:
        _same_page(csrf, request, "admin")
        address = f"{request.base_url}in/{store.invite(name.strip())}"
        return page(request, "link", name=name.strip(), address=address)

    @app.get("/admin/votes.jsonl")
    def raw(who: Admin) -> Response:
        return _lines(vote._asdict() for vote in aggregation.read(store.path).history)

    @app.get("/admin/groups.jsonl")
    def labelled(
        who: Admin, how: How = "share", least: Annotated[float, Query(ge=0, le=1)] = 0.0
    ) -> Response:
        return _lines(
            as_row(group)
            for _, group in aggregation.groups(
                aggregation.trusted(aggregation.read(store.path), least), how
            )
        )

    return app


def _cookie(request: Request, role: str) -> str:  # a browser keeps one jar for all ports of a host
    return f"{role}-{hashlib.sha256(bytes(request.app.state.store.path.resolve())).hexdigest()[:8]}"


def _csrf(request: Request, role: str) -> str:
    """What only a page that was made for this session knows."""
    return hmac.new(
        request.cookies[_cookie(request, role)].encode(), b"form", hashlib.sha256
    ).hexdigest()


def _same_page(given: str, request: Request, role: str) -> None:
    if not hmac.compare_digest(given.encode(errors="replace"), _csrf(request, role).encode()):
        raise HTTPException(403)


def _lines(rows: Iterable[dict[str, Any]]) -> Response:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return Response(text.encode(errors="replace"), media_type="application/x-ndjson")
