"""The web page: one task at a time for annotators, metrics and exports for the admin."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from markdown_it import MarkdownIt
from markupsafe import Markup
from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lit_align.data.formats.groups import as_row
from lit_align.labelling.aggregation import AGGREGATORS, drop_unreliable, labelled_groups
from lit_align.labelling.agreement import campaign_metrics
from lit_align.labelling.campaign import Campaign
from lit_align.labelling.store import AssignedTask, Stale, Store
from lit_align.labelling.votes import read_votes
from lit_align.types import Text

FOLDER = Path(__file__).parent
MAX_BODY = 64 * 1024  # bytes
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
# a model's Markdown is rendered, and never as HTML, a link or a picture of its own
MARKDOWN = MarkdownIt("js-default", {"html": False, "breaks": True}).disable(
    ["image", "link", "autolink", "code"]
)
# headings of a response must not be headings of the page
MARKDOWN.add_render_rule("heading_open", lambda *_: '<p class="heading">')
MARKDOWN.add_render_rule("heading_close", lambda *_: "</p>")

PersonName = Annotated[str, Form(max_length=100, pattern=r"^[^\x00-\x1f]*\S[^\x00-\x1f]*$")]
TaskNumber = Annotated[int, Field(ge=1, lt=2**63)]
Place = Annotated[str, Field(pattern="^[0-9]{1,3}-[0-9]{1,3}$")]
Method = Literal["majority", "share", "dawid_skene"]

router = APIRouter()


class Ballot(BaseModel):
    """The form of a task; answers refer to the responses as they are shown."""

    csrf: Annotated[str, Field(max_length=100)]
    task: TaskNumber
    revision: Annotated[int, Field(ge=1, lt=2**31)]
    verdict: Literal["vote", "skip", "undo"] = "vote"
    preference: Annotated[int | None, Field(ge=-3, le=3)] = None
    place: Annotated[list[Place], Field(max_length=100)] = []
    rating: Annotated[int | None, Field(ge=1, le=7)] = None
    up: bool | None = None
    flag: Annotated[list[str], Field(max_length=100)] = []
    note: Annotated[str, Field(max_length=2000)] = ""

    def answer(self, task: AssignedTask, flags: Iterable[str]) -> dict[str, Any]:
        """The answer to a task.

        Raises:
            RequestValidationError: if the form does not answer it.
        """
        if task.kind == "rank":
            return {"places": self._places(len(task.order))}
        if task.kind == "compare":
            answer: dict[str, Any] = {"preference": self.preference}
        elif task.kind == "rate":
            raised = {flag: flag in self.flag for flag in flags}
            answer = {"rating": self.rating, "flags": raised}
        else:
            answer = {"up": self.up}
        if None in answer.values():
            raise RequestValidationError([])
        return answer

    def _places(self, num_responses: int) -> list[int]:
        place_of = {}
        for entry in self.place:
            shown, _, place = entry.partition("-")
            place_of[int(shown)] = int(place)
        places = [place_of.get(index, 0) for index in range(num_responses)]
        if not all(0 < place <= num_responses for place in places):
            raise RequestValidationError([])
        return places


def to_paragraphs(text: Text) -> list[tuple[str, Markup]]:
    """Role and safe HTML of each turn; the role is empty where there is only one."""
    if isinstance(text, str):
        return [("", Markup(MARKDOWN.render(text)))]
    paragraphs = []
    for turn in text:
        role = turn["role"] if len(text) > 1 else ""
        html = MARKDOWN.render(turn["content"])
        paragraphs.append((role, Markup(html)))
    return paragraphs


TEMPLATES = Jinja2Templates(directory=FOLDER / "templates")
TEMPLATES.env.filters["paragraphs"] = to_paragraphs


def _require_role(role: str) -> Callable[[Request], Awaitable[int]]:
    """A dependency: the person whose session cookie the request has, or status 401."""

    async def person(request: Request) -> int:  # a moment: it need not wait for a thread
        secret = request.cookies.get(_cookie_name(request, role), "")
        number = _store(request).session_person(secret, admin=role == "admin")
        if number is None:
            raise HTTPException(401)
        return number

    return person


Annotator = Annotated[int, Depends(_require_role("annotator"))]
Admin = Annotated[int, Depends(_require_role("admin"))]


def build_app(store: Store, campaign: Campaign) -> FastAPI:
    """The web application of a campaign."""
    app = FastAPI(title="lit-align label", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store, app.state.campaign = store, campaign
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    app.include_router(router)
    app.add_middleware(Guard)
    for error in (StarletteHTTPException, RequestValidationError, Stale):
        app.add_exception_handler(error, _show_error)
    return app


class Guard:
    """Refuses bodies that are large, or that do not say how large they are; adds headers to every reply.

    Plain ASGI: a function as middleware would run each request in a task of its own, which costs more than a vote.

    Args:
        app: what is guarded.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        app = self.app if _has_small_body(Headers(scope=scope)) else TOO_LARGE
        await app(scope, receive, send_with_headers)


TOO_LARGE = Response("too large", 413, {"connection": "close"})


def _has_small_body(headers: Headers) -> bool:
    length = headers.get("content-length", "0")
    is_chunked = "transfer-encoding" in headers
    return not is_chunked and length.isdecimal() and int(length) <= MAX_BODY


def _show_error(request: Request, error: Exception) -> Response:
    if isinstance(error, StarletteHTTPException):
        status = error.status_code
    elif isinstance(error, Stale):
        status = 404 if request.method == "GET" else 409  # a task that was never shown is not there
    else:
        status = 422
    return _page(request, "refused", status, status=status, message=str(error))


@router.get("/in/{token}")
def sign_in(token: str, request: Request) -> Response:
    """Exchange the link for a cookie, so that the token is in no address that is copied or logged later."""
    session = _store(request).open_session(token)
    if session is None:
        raise HTTPException(404)
    secret, is_admin = session
    role, home = ("admin", "/admin") if is_admin else ("annotator", "/")
    response = RedirectResponse(home, 303)
    response.set_cookie(
        _cookie_name(request, role),
        secret,
        max_age=int(_store(request).session_seconds),
        httponly=True,
        samesite="lax",
        secure=_campaign(request).address.startswith("https:"),
    )
    return response


@router.get("/")
def show_next_task(request: Request, person: Annotator) -> Response:
    """The next task, or that all are done."""
    task = _store(request).next_task(person)
    if task is None:
        return _annotator_page(request, person, "done")
    return _annotator_page(request, person, "task", task=task)


@router.get("/task/{number}")
def show_task(number: TaskNumber, request: Request, person: Annotator) -> Response:
    """A task that was shown before, to answer it again."""
    task = _store(request).reopen_task(person, number)
    return _annotator_page(request, person, "task", task=task)


@router.post("/vote")
def record_vote(ballot: Annotated[Ballot, Form()], request: Request, person: Annotator) -> Response:
    """Record an answer, or take one back."""
    _check_csrf(ballot.csrf, request, "annotator")
    store = _store(request)
    task = store.assigned_task(person, ballot.task)
    answer = {}
    if ballot.verdict == "vote":
        answer = ballot.answer(task, _campaign(request).flags)
    store.record_vote(
        person,
        number=ballot.task,
        revision=ballot.revision,
        verdict=ballot.verdict,
        answer=answer,
        note=ballot.note.strip(),
    )
    if ballot.verdict == "undo":
        return RedirectResponse(f"/task/{ballot.task}", 303)
    return RedirectResponse("/", 303)


@router.get("/mine")
def show_own_answers(request: Request, person: Annotator) -> Response:
    """The annotator's own answers."""
    rows = []
    for answer in _store(request).recent_answers(person):
        rows.append((answer.number, answer.verdict, answer.prompt))
    return _annotator_page(request, person, "mine", rows=rows)


@router.get("/admin")
def show_metrics(request: Request, person: Admin) -> Response:
    """Metrics of the campaign."""
    data = read_votes(_store(request).path)
    return _page(
        request,
        "admin",
        metrics=campaign_metrics(data, _store(request).votes),
        methods=list(AGGREGATORS),
        csrf=_csrf_token(request, "admin"),
    )


@router.post("/admin/link")
def make_link(
    csrf: Annotated[str, Form()], name: PersonName, request: Request, person: Admin
) -> Response:
    """A new link for a person."""
    _check_csrf(csrf, request, "admin")
    name = name.strip()
    token = _store(request).invite(name)
    address = _campaign(request).link(token)
    return _page(request, "link", name=name, address=address)


@router.get("/admin/votes.jsonl")
def export_votes(request: Request, person: Admin) -> Response:
    """Every answer ever given, as JSON lines."""
    data = read_votes(_store(request).path)
    return _json_lines(vote._asdict() for vote in data.history)


@router.get("/admin/groups.jsonl")
def export_groups(
    request: Request,
    person: Admin,
    method: Annotated[Method, Query(alias="how")] = "share",
    min_gold_accuracy: Annotated[float, Query(ge=0, le=1, alias="least")] = 0.0,
) -> Response:
    """Groups with their labels, as JSON lines that training reads."""
    data = drop_unreliable(read_votes(_store(request).path), min_gold_accuracy)
    return _json_lines(as_row(group) for _, group in labelled_groups(data, method))


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _campaign(request: Request) -> Campaign:
    campaign: Campaign = request.app.state.campaign
    return campaign


def _page(request: Request, template: str, status_code: int = 200, **values: Any) -> Response:
    context = {"campaign": _campaign(request), **values}
    return TEMPLATES.TemplateResponse(request, f"{template}.html", context, status_code)


def _annotator_page(request: Request, person: int, template: str, **values: Any) -> Response:
    """With the bar on top: the annotator's progress, and the answer that can be taken back."""
    store = _store(request)
    done, left, seconds = store.progress(person)
    last_answers = store.recent_answers(person, limit=1)
    return _page(
        request,
        template,
        csrf=_csrf_token(request, "annotator"),
        done=done,
        left=left,
        seconds=seconds,
        last=last_answers[0] if last_answers else None,
        **values,
    )


def _cookie_name(request: Request, role: str) -> str:
    """A name for this store: browsers share cookies between all ports of a host."""
    path = _store(request).path.resolve()
    digest = hashlib.sha256(bytes(path)).hexdigest()
    return f"{role}-{digest[:8]}"


def _csrf_token(request: Request, role: str) -> str:
    """A token that only a page made for this session knows."""
    cookie = _cookie_name(request, role)
    secret = request.cookies[cookie].encode()
    return hmac.new(secret, b"form", hashlib.sha256).hexdigest()


def _check_csrf(token: str, request: Request, role: str) -> None:
    expected = _csrf_token(request, role).encode()
    if not hmac.compare_digest(token.encode(errors="replace"), expected):
        raise HTTPException(403)


def _json_lines(rows: Iterable[dict[str, Any]]) -> Response:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "".join(f"{line}\n" for line in lines)
    content = text.encode(errors="replace")
    return Response(content, media_type="application/x-ndjson")
