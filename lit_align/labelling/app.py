"""The web application of a campaign: its pages, what they refuse, and the headers of every reply."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lit_align.labelling import admin_pages, annotator_pages, export_pages
from lit_align.labelling.campaign import Campaign
from lit_align.labelling.introduction import NO_INTRODUCTION, Introduction
from lit_align.labelling.store import NeverShown, Stale, Store
from lit_align.labelling.web import (
    FOLDER,
    campaign_of,
    cookie_name,
    redirect,
    show_page,
    store_of,
)

MAX_BODY = 64 * 1024  # bytes
MAX_UPLOAD = 16 * 1024 * 1024  # bytes of a file of tasks
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

router = APIRouter()


def build_app(
    store: Store, campaign: Campaign, introduction: Introduction = NO_INTRODUCTION
) -> FastAPI:
    """The web application of a campaign."""
    app = FastAPI(
        title="lit-align label",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # such a redirect would be to the host that the request names
    )
    app.state.store, app.state.campaign, app.state.introduction = store, campaign, introduction
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    for pages in (router, annotator_pages.router, admin_pages.router, export_pages.router):
        app.include_router(pages)
    app.add_middleware(Guard, base_path=campaign.base_path)
    for error in (StarletteHTTPException, RequestValidationError, Stale):
        app.add_exception_handler(error, _show_error)
    return app


class Guard:
    """Refuses bodies that are large, or that do not say how large they are; adds headers to every reply.

    Plain ASGI: a function as middleware would run each request in a task of its own, which costs more than a vote.

    Args:
        app: what is guarded.
        base_path: path of the public address; a proxy in front may pass it on or leave it out.
    """

    def __init__(self, app: ASGIApp, base_path: str) -> None:
        self.app, self.base_path = app, base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        scope = _under(self.base_path, scope)
        max_body = MAX_UPLOAD if scope["path"] == f"{self.base_path}/admin/tasks" else MAX_BODY
        app = self.app if _has_small_body(Headers(scope=scope), max_body) else TOO_LARGE
        await app(scope, receive, send_with_headers)


TOO_LARGE = Response("too large", 413, {"connection": "close"})


def _under(base_path: str, scope: Scope) -> Scope:
    """The request with the path of the public address in front, whether or not a proxy has left it out."""
    if not base_path:
        return scope
    path = scope["path"]
    if path == base_path:
        path = f"{base_path}/"
    elif not path.startswith(f"{base_path}/"):
        path = base_path + path
    return {**scope, "root_path": base_path, "path": path}


def _has_small_body(headers: Headers, max_body: int) -> bool:
    length = headers.get("content-length", "0")
    is_chunked = "transfer-encoding" in headers
    return not is_chunked and length.isdecimal() and int(length) <= max_body


def _show_error(request: Request, error: Exception) -> Response:
    if isinstance(error, StarletteHTTPException):
        status = error.status_code
    elif isinstance(error, Stale):
        status = 404 if request.method == "GET" else 409  # a task that was never shown is not there
    else:
        status = 422
    stale = "refused_never_shown" if isinstance(error, NeverShown) else "refused_other_window"
    return show_page(request, "refused", status, status=status, stale=stale)


@router.get("/in/{token}")
def sign_in(token: str, request: Request) -> Response:
    """Exchange the link for a cookie, so that the token is in no address that is copied or logged later."""
    session = store_of(request).open_session(token)
    if session is None:
        raise HTTPException(404)
    secret, is_admin = session
    role, home = ("admin", "/admin") if is_admin else ("annotator", "/")
    response = redirect(request, home)
    response.set_cookie(
        cookie_name(request, role),
        secret,
        max_age=int(store_of(request).session_seconds),
        path=campaign_of(request).base_path or "/",
        httponly=True,
        samesite="lax",
        secure=campaign_of(request).address.startswith("https:"),
    )
    return response
