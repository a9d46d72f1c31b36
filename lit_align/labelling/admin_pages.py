"""The pages of admins: metrics, tasks with their votes, links, and what ends, extends or corrects a campaign."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from lit_align.errors import DataError, LitAlignError
from lit_align.labelling.administration import (
    AddedTasks,
    add_new_tasks,
    choose_kind,
    describe_added,
    end_campaign,
    remove_votes,
    reopen_campaign,
)
from lit_align.labelling.aggregation import AGGREGATORS
from lit_align.labelling.agreement import campaign_metrics
from lit_align.labelling.alpha import MIN_TASKS
from lit_align.labelling.social_choice import RANKINGS
from lit_align.labelling.store import Store
from lit_align.labelling.task_list import (
    FILTERS,
    PAGE_SIZE,
    Filter,
    describe_known_answer,
    summarise_tasks,
    task_responses,
    vote_lines,
)
from lit_align.labelling.votes import RETRACTED, read_votes
from lit_align.labelling.web import (
    Admin,
    CsrfToken,
    campaign_of,
    check_csrf,
    csrf_token,
    redirect,
    show_page,
    store_of,
)

PersonName = Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f]*\S[^\x00-\x1f]*$")]
UPLOAD_SUFFIXES = (".jsonl", ".json", ".csv")

router = APIRouter(prefix="/admin")


@router.get("")
def show_metrics(request: Request, person: Admin) -> Response:
    """Metrics of the campaign, and what an admin can do."""
    store = store_of(request)
    return _admin_page(
        request,
        "admin",
        metrics=campaign_metrics(read_votes(store.path), store.votes),
        methods=list(AGGREGATORS),
        rankings=list(RANKINGS),
        votes=store.votes,
        suffixes=UPLOAD_SUFFIXES,
        min_tasks=MIN_TASKS,
    )


@router.get("/tasks")
def list_tasks(
    request: Request,
    person: Admin,
    show: Filter = "all",
    page: Annotated[int, Query(ge=1, le=10**6)] = 1,
) -> Response:
    """The tasks that a filter lets through, some at a time."""
    summaries = summarise_tasks(read_votes(store_of(request).path))
    counts = {}
    for name in FILTERS:
        counts[name] = sum(summary.is_in(name) for summary in summaries)
    shown = [summary for summary in summaries if summary.is_in(show)]
    start = (page - 1) * PAGE_SIZE
    return _admin_page(
        request,
        "tasks",
        tasks=shown[start : start + PAGE_SIZE],
        counts=counts,
        show=show,
        page=page,
        num_pages=max(1, -(-len(shown) // PAGE_SIZE)),
        votes=store_of(request).votes,
    )


@router.get("/tasks/{number}")
def show_task_votes(
    number: Annotated[int, Field(ge=1, lt=2**63)], request: Request, person: Admin
) -> Response:
    """A task with every answer to it."""
    data = read_votes(store_of(request).path)
    if number not in data.tasks:
        raise HTTPException(404)
    task = data.tasks[number]
    group = data.groups[task.group]
    flags = campaign_of(request).flags
    return _admin_page(
        request,
        "task_votes",
        number=number,
        group=group,
        responses=task_responses(group, task),
        known=describe_known_answer(task, flags),
        lines=vote_lines(data, number, flags),
    )


@router.post("/tasks")
async def add_tasks(request: Request, person: Admin) -> Response:
    """Add the tasks of a file; its body is read only once the session is known to be an admin's."""
    async with request.form(max_files=1, max_fields=10) as form:
        check_csrf(str(form.get("csrf", "")), request, "admin")
        upload = form.get("file")
        if not isinstance(upload, UploadFile) or not upload.filename:
            return _notice(request, "Choose a file of tasks.", 422)
        suffix = Path(upload.filename).suffix.lower()
        if suffix not in UPLOAD_SUFFIXES:
            return _notice(request, f"Tasks are read from {', '.join(UPLOAD_SUFFIXES)} files.", 422)
        content = await upload.read()
    ask = campaign_of(request).ask
    try:
        tasks = await run_in_threadpool(_add_upload, store_of(request), content, suffix, ask)
    except LitAlignError as error:
        return _notice(request, f"{error}.", 422)
    return _notice(request, describe_added(tasks))


def _add_upload(store: Store, content: bytes, suffix: str, ask: str | None) -> AddedTasks:
    """Add the tasks of what was uploaded, read as a file of that suffix."""
    from lit_align.labelling.task_files import check_tasks, load_task_groups

    kind = choose_kind(store, ask)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"upload{suffix}")
        path.write_bytes(content)
        try:
            groups = load_task_groups([str(path)], on_ledger=lambda ledger: None)
        except LitAlignError as error:  # where the file lies for a moment is nobody's business
            raise DataError(str(error).replace(f"{folder}/", "")) from error
    named = [group._replace(source=group.source.removeprefix(f"{folder}/")) for group in groups]
    check_tasks(named, kind, "the file")
    return add_new_tasks(store, named, kind)


@router.post("/state")
def change_state(
    csrf: CsrfToken,
    action: Annotated[Literal["end", "reopen", "extend"], Form()],
    request: Request,
    person: Admin,
    votes: Annotated[int | None, Form(ge=1, le=1000)] = None,
) -> Response:
    """End the campaign, open it again, or ask for another number of votes per task."""
    check_csrf(csrf, request, "admin")
    store = store_of(request)
    if action == "end":
        end_campaign(store)
    elif action == "reopen":
        reopen_campaign(store)
    elif votes is None:
        raise RequestValidationError([])
    else:
        store.votes = votes
    return redirect(request, "/admin")


@router.post("/link")
def make_link(
    csrf: CsrfToken, name: Annotated[PersonName, Form()], request: Request, person: Admin
) -> Response:
    """A new link for a person."""
    check_csrf(csrf, request, "admin")
    name = name.strip()
    token = store_of(request).invite(name)
    address = campaign_of(request).link(token)
    return _admin_page(request, "link", name=name, address=address)


@router.get("/removal")
def confirm_removal(
    name: Annotated[PersonName, Query()], request: Request, person: Admin
) -> Response:
    """Ask before the votes of an annotator are removed."""
    num_answers = 0
    for vote in read_votes(store_of(request).path).latest:
        num_answers += vote.annotator == name and vote.verdict not in RETRACTED
    return _admin_page(request, "removal", name=name, num_answers=num_answers)


@router.post("/removal")
def remove_annotator_votes(
    csrf: CsrfToken, name: Annotated[PersonName, Form()], request: Request, person: Admin
) -> Response:
    """Take the votes of an annotator back, and end the link."""
    check_csrf(csrf, request, "admin")
    try:
        num_answers = remove_votes(store_of(request), name)
    except LitAlignError as error:
        return _notice(request, f"{error}.", 422)
    return _notice(request, f"{num_answers} answers of {name} no longer count; the link is ended.")


def _admin_page(request: Request, template: str, status_code: int = 200, **values: Any) -> Response:
    return show_page(
        request,
        template,
        status_code,
        csrf=csrf_token(request, "admin"),
        has_ended=store_of(request).has_ended,
        **values,
    )


def _notice(request: Request, sentence: str, status_code: int = 200) -> Response:
    return _admin_page(request, "notice", status_code, sentence=sentence)
