"""What the pages share: the store and the campaign of a request, sessions, forms, and templates."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from markupsafe import Markup

from lit_align.labelling.campaign import Campaign
from lit_align.labelling.introduction import Introduction
from lit_align.labelling.languages import Words, choose_language, read_language
from lit_align.labelling.rendering import to_paragraphs, to_plain_text
from lit_align.labelling.store import Store
from lit_align.labelling.wording import VERDICTS, describe_answer, format_time

FOLDER = Path(__file__).parent
TEMPLATES = Jinja2Templates(directory=FOLDER / "templates")
TEMPLATES.env.filters["paragraphs"] = to_paragraphs
TEMPLATES.env.filters["plain_text"] = to_plain_text
TEMPLATES.env.filters["time"] = format_time
TEMPLATES.env.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
TEMPLATES.env.filters["strong"] = lambda text: Markup("<strong>{}</strong>").format(text)
TEMPLATES.env.globals["describe_answer"] = describe_answer
TEMPLATES.env.globals["verdicts"] = VERDICTS

CsrfToken = Annotated[str, Form(max_length=100)]


def store_of(request: Request) -> Store:
    """The store of the page."""
    store: Store = request.app.state.store
    return store


def campaign_of(request: Request) -> Campaign:
    """The settings of the page."""
    campaign: Campaign = request.app.state.campaign
    return campaign


def introduction_of(request: Request) -> Introduction:
    """What annotators read first."""
    introduction: Introduction = request.app.state.introduction
    return introduction


def require_role(role: str) -> Callable[[Request], Awaitable[int]]:
    """A dependency: the person whose session cookie the request has, or status 401."""

    async def person(request: Request) -> int:  # a moment: it need not wait for a thread
        secret = request.cookies.get(cookie_name(request, role), "")
        number = store_of(request).session_person(secret, admin=role == "admin")
        if number is None:
            raise HTTPException(401)
        return number

    return person


Annotator = Annotated[int, Depends(require_role("annotator"))]
Admin = Annotated[int, Depends(require_role("admin"))]


def redirect(request: Request, path: str) -> RedirectResponse:
    """To another page, under the path of the public address; the host is the one that the browser knows."""
    return RedirectResponse(f"{campaign_of(request).base_path}{path}", 303)


def is_admin_page(request: Request) -> bool:
    """Whether the address is one of the admin's."""
    home = f"{campaign_of(request).base_path}/admin"
    path: str = request.scope["path"]
    return path == home or path.startswith(f"{home}/")


def words_of(request: Request) -> Words:
    """The words of the language that the browser prefers; English for the admin."""
    if is_admin_page(request):
        return read_language("en")
    return choose_language(request.headers.get("accept-language", ""), campaign_of(request).words)


def show_page(request: Request, template: str, status_code: int = 200, **values: Any) -> Response:
    """A page of that template, in the words of the request."""
    campaign, words = campaign_of(request), words_of(request)
    context = {
        "campaign": campaign,
        "base": campaign.base_path,
        "is_admin": is_admin_page(request),
        "words": words,
        "flags": words.flag_texts(campaign.flags),
        **values,
    }
    return TEMPLATES.TemplateResponse(request, f"{template}.html", context, status_code)


def cookie_name(request: Request, role: str) -> str:
    """A name for this store: browsers share cookies between all ports of a host."""
    return f"{role}-{_path_digest(store_of(request).path)}"


@lru_cache(maxsize=8)
def _path_digest(path: Path) -> str:
    """Once a store: to resolve a path costs as much as a query."""
    return hashlib.sha256(bytes(path.resolve())).hexdigest()[:8]


def csrf_token(request: Request, role: str) -> str:
    """A token that only a page made for this session knows."""
    cookie = cookie_name(request, role)
    secret = request.cookies[cookie].encode()
    return hmac.new(secret, b"form", hashlib.sha256).hexdigest()


def check_csrf(token: str, request: Request, role: str) -> None:
    """Refuse a form that was made for somebody else, with status 403."""
    expected = csrf_token(request, role).encode()
    if not hmac.compare_digest(token.encode(errors="replace"), expected):
        raise HTTPException(403)


def json_lines(rows: Iterable[dict[str, Any]]) -> Response:
    """A download of JSON lines."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "".join(f"{line}\n" for line in lines)
    return Response(text.encode(errors="replace"), media_type="application/x-ndjson")
