"""The web page: a task at a time for annotators, figures and exports for whoever runs the campaign."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Form, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from markdown_it import MarkdownIt
from markupsafe import Markup
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as Refusal

from lit_align.batches import Text
from lit_align.labelling import votes
from lit_align.labelling.agreement import overview
from lit_align.labelling.campaign import QUESTIONS, Campaign
from lit_align.labelling.guard import Guard
from lit_align.labelling.store import Person, Stale, Store, Task

HERE = Path(__file__).parent
STRENGTHS = ("equally good", "slightly better", "better", "much better")
SENTENCES = {
    401: "This page opens with a personal link. Ask whoever sent you here for yours.",
    403: "This form has grown old. Open the page again and repeat your answer.",
    404: "There is nothing here.",
    405: "That cannot be done here.",
}
# what a model wrote is shown as it is meant, and never as HTML, a link or a picture
WRITTEN = MarkdownIt("js-default", {"html": False, "breaks": True}).disable(["image", "link", "autolink", "code"])


class Ballot(BaseModel):
    """What the form of a task sends; what is chosen refers to the responses as they are shown."""

    csrf: Annotated[str, Field(max_length=100)]
    task: Annotated[int, Field(ge=1, lt=2**63)]
    revision: Annotated[int, Field(ge=1, lt=2**31)]
    verdict: Literal["vote", "skip", "undo"] = "vote"
    preference: Annotated[int | None, Field(ge=-3, le=3)] = None
    place: Annotated[list[str], Field(max_length=100)] = []
    rating: Annotated[int | None, Field(ge=1, le=7)] = None
    up: bool | None = None
    flag: Annotated[list[str], Field(max_length=100)] = []
    note: Annotated[str, Field(max_length=2000)] = ""


def paragraphs(text: Text) -> list[tuple[str, Markup]]:
    """Who speaks, where more than one does, and what is said, as HTML that only we have written."""
    turns = [("", text)] if isinstance(text, str) else [(turn["role"], turn["content"]) for turn in text]
    return [(role if len(turns) > 1 else "", Markup(_render(said))) for role, said in turns]


def _render(said: str) -> str:
    tokens = WRITTEN.parse(said)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):  # the headings of a response are none of the page's
            token.tag, token.attrs = "p", {"class": "heading"} if token.nesting == 1 else {}
    return str(WRITTEN.renderer.render(tokens, WRITTEN.options, {}))


def answered(ballot: Ballot, kind: str, order: tuple[int, ...], flags: dict[str, str]) -> dict[str, Any] | None:
    """The answer by index in the group, None if the form does not hold one.

    Example:
        >>> answered(Ballot(csrf="", task=1, revision=1, preference=-2), "compare", (1, 0), {})
        {'better': 1, 'strength': 2}
    """
    if ballot.verdict != "vote":
        return {}
    if kind == "compare" and ballot.preference is not None:
        better = None if not ballot.preference else order[ballot.preference > 0]
        return {"better": better, "strength": abs(ballot.preference)}
    if kind == "rank":
        places = dict(entry.partition("-")[::2] for entry in ballot.place)
        if set(places) == {str(k) for k in range(len(order))} and all(p in PLACES for p in places.values()):
            by_index = {i: int(places[str(k)]) for k, i in enumerate(order)}
            return {"places": [by_index[i] for i in sorted(order)]}
    if kind == "rate" and ballot.rating is not None:
        return {"rating": ballot.rating, "flags": {name: name in ballot.flag for name in flags}}
    return {"up": ballot.up} if kind == "thumbs" and ballot.up is not None else None


PLACES = {str(place) for place in range(1, 101)}


def _whose(request: Request, role: str) -> Person:
    store: Store = request.app.state.store
    person = store.person(request.cookies.get(role, ""), admin=role == "admin")
    if person is None:
        raise HTTPException(401)
    return person


def _annotator(request: Request) -> Person:
    return _whose(request, "annotator")


def _admin(request: Request) -> Person:
    return _whose(request, "admin")


Annotator = Annotated[Person, Depends(_annotator)]
Admin = Annotated[Person, Depends(_admin)]


def build(store: Store, campaign: Campaign) -> FastAPI:
    """The page of a campaign.

    Args:
        store: where everything is kept.
        campaign: what is asked.
    """
    app = FastAPI(title="lit-align label", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store = store
    app.add_middleware(Guard)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    templates = Jinja2Templates(directory=HERE / "templates")
    templates.env.filters["paragraphs"] = paragraphs
    templates.env.globals.update(strengths=STRENGTHS, campaign=campaign)

    def page(request: Request, template: str, status: int = 200, **shown: Any) -> HTMLResponse:
        return templates.TemplateResponse(request, f"{template}.html", shown, status)

    @app.exception_handler(Refusal)
    def refused(request: Request, error: Refusal) -> Response:
        told = SENTENCES.get(error.status_code, "That did not work.")
        return page(request, "message", error.status_code, title="Not this way", told=told, on=error.status_code != 401)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        told = "That is not an answer that this page could have sent. Open the task again."
        return page(request, "message", 422, title="Not understood", told=told, on=True)

    @app.exception_handler(Stale)
    def stale(request: Request, error: Stale) -> Response:
        told = str(error)[0].upper() + str(error)[1:] + "."
        return page(request, "message", 409, title="Answered already", told=told, on=True)

    @app.get("/in/{token}")
    def come_in(token: str, request: Request) -> Response:
        """Exchange the link for a cookie, so that the token is in no address that is copied or logged later."""
        found = store.enter(token)
        if found is None:
            raise HTTPException(404)
        secret, is_admin = found
        reply = RedirectResponse("/admin" if is_admin else "/", 303)
        name, secure = "admin" if is_admin else "annotator", request.url.scheme == "https"
        reply.set_cookie(name, secret, max_age=90 * 86400, httponly=True, samesite="lax", secure=secure)
        return reply

    @app.get("/")
    def next_task(request: Request, who: Annotator) -> Response:
        """Show what to answer next."""
        task = store.next(who)
        return _task(request, who, task) if task else _done(request, who)

    @app.get("/task/{number}")
    def one_task(number: Annotated[int, Field(ge=1, lt=2**63)], request: Request, who: Annotator) -> Response:
        """Show a task that was answered before, to change the answer."""
        task = store.open(who, number)
        if task is None:
            raise HTTPException(404)
        return _task(request, who, task)

    def _task(request: Request, who: Person, task: Task) -> Response:
        return page(
            request,
            "task",
            task=task,
            question=campaign.question or QUESTIONS[task.kind],
            before=_as_shown(task),
            **_frame(request, who),
        )

    def _done(request: Request, who: Person) -> Response:
        frame = _frame(request, who)
        told = "Others are at the last tasks; look in again later." if frame["left"] else "That was all. Thank you!"
        return page(request, "message", title="Done for now" if frame["left"] else "Done", told=told, **frame)

    def _frame(request: Request, who: Person) -> dict[str, Any]:
        done, left, seconds = store.progress(who)
        last = store.mine(who, 1)
        csrf = _csrf(request.cookies["annotator"])
        return {"who": who, "done": done, "left": left, "seconds": seconds, "last": last and last[0], "csrf": csrf}

    @app.post("/vote")
    def vote(ballot: Annotated[Ballot, Form()], request: Request, who: Annotator) -> Response:
        """Keep an answer, and go on when it is on disk."""
        _same_page(ballot.csrf, request.cookies["annotator"])
        kind, order = store.asked(who, ballot.task)
        answer = answered(ballot, kind, order, campaign.flags)
        if answer is None:
            raise RequestValidationError([])
        store.record(who, ballot.task, ballot.revision, ballot.verdict, answer, ballot.note.strip())
        return RedirectResponse(f"/task/{ballot.task}" if ballot.verdict == "undo" else "/", 303)

    @app.get("/mine")
    def mine(request: Request, who: Annotator) -> Response:
        """List what was answered."""
        rows = [(task, verdict, _plain(json.loads(prompt))) for task, _, verdict, _, prompt in store.mine(who)]
        return page(request, "mine", rows=rows, **_frame(request, who))

    @app.get("/admin")
    def figures(request: Request, who: Admin) -> Response:
        """Show how it goes."""
        found = overview(votes.read(store.path), campaign.votes)
        return page(request, "admin", figures=found, hows=list(votes.HOW), csrf=_csrf(request.cookies["admin"]))

    @app.post("/admin/link")
    def link(
        csrf: Annotated[str, Form(max_length=100)],
        name: Annotated[str, Form(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]*\S[^\x00-\x1f]*$")],
        request: Request,
        who: Admin,
    ) -> Response:
        """Make a link for somebody; an older one of the same name stops working."""
        _same_page(csrf, request.cookies["admin"])
        token = store.invite(name.strip())
        return page(request, "link", name=name.strip(), address=str(request.base_url) + f"in/{token}")

    @app.get("/admin/votes.jsonl")
    def raw(who: Admin) -> Response:
        """Every answer ever given, with the names of those who gave it."""
        return _lines(vote._asdict() for vote in votes.read(store.path).history)

    @app.get("/admin/groups.jsonl")
    def labelled(
        who: Admin,
        how: Literal["majority", "share", "dawid_skene"] = "share",
        least: Annotated[float, Query(ge=0, le=1)] = 0.0,
    ) -> Response:
        """Labels that train, of annotators who got at least the share ``least`` of their gold tasks right."""
        found = votes.groups(votes.trusted(votes.read(store.path), least), how)
        return _lines(map(votes.row, found))

    return app


def _as_shown(task: Task) -> dict[str, Any]:
    """The answer before, in the words of the form."""
    said = dict(task.answer)
    if "strength" in said:
        said["preference"] = (
            said["strength"] * (1 if task.order.index(said["better"]) else -1) if said["strength"] else 0
        )
    if "places" in said:
        by_index = dict(zip(sorted(task.order), said["places"], strict=True))
        said["places"] = [by_index[i] for i in task.order]
    return said


def _plain(text: Text) -> str:
    return text if isinstance(text, str) else text[-1]["content"]


def _csrf(secret: str) -> str:
    """What only a page that was made for this session knows."""
    return hmac.new(secret.encode(), b"form", hashlib.sha256).hexdigest()


def _same_page(given: str, secret: str) -> None:
    if not hmac.compare_digest(given.encode(errors="replace"), _csrf(secret).encode()):
        raise HTTPException(403)


def _lines(rows: Iterator[dict[str, Any]]) -> StreamingResponse:
    text = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return StreamingResponse(text, media_type="application/x-ndjson")
