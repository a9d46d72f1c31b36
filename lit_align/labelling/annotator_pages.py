"""The pages of annotators: one task at a time, what comes before the first, and one's own answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field

from lit_align.labelling.introduction import Example, Introduction
from lit_align.labelling.rendering import guidelines_to_html
from lit_align.labelling.store import AssignedTask, Ended
from lit_align.labelling.web import (
    Annotator,
    CsrfToken,
    campaign_of,
    check_csrf,
    csrf_token,
    introduction_of,
    redirect,
    show_page,
    store_of,
)

TaskNumber = Annotated[int, Field(ge=1, lt=2**63)]
Place = Annotated[str, Field(pattern="^[0-9]{1,3}-[0-9]{1,3}$")]

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

    def answer(self, task: AssignedTask | Example, flags: Iterable[str]) -> dict[str, Any]:
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


@router.get("/")
def show_next_task(request: Request, person: Annotator) -> Response:
    """The next task, or that all are done; before the first one, what is to be read."""
    store = store_of(request)
    if store.has_ended:
        return _annotator_page(request, person, "ended")
    digest = introduction_of(request).digest
    if digest and not store.is_introduced(person, digest):
        return redirect(request, "/guidelines")
    task = store.next_task(person)
    if task is None:
        return _annotator_page(request, person, "done")
    return _annotator_page(request, person, "task", task=task)


@router.get("/task/{number}")
def show_task(number: TaskNumber, request: Request, person: Annotator) -> Response:
    """A task that was shown before, to answer it again."""
    store = store_of(request)
    if store.has_ended:
        store.assigned_task(person, number)
        return _annotator_page(request, person, "ended")
    task = store.reopen_task(person, number)
    return _annotator_page(request, person, "task", task=task)


@router.post("/vote")
def record_vote(ballot: Annotated[Ballot, Form()], request: Request, person: Annotator) -> Response:
    """Record an answer, or take one back."""
    check_csrf(ballot.csrf, request, "annotator")
    store = store_of(request)
    task = store.assigned_task(person, ballot.task)
    answer = {}
    if ballot.verdict == "vote":
        answer = ballot.answer(task, campaign_of(request).flags)
    try:
        store.record_vote(
            person,
            number=ballot.task,
            revision=ballot.revision,
            verdict=ballot.verdict,
            answer=answer,
            note=ballot.note.strip(),
        )
    except Ended:
        return _annotator_page(request, person, "ended", status_code=409, is_late=True)
    if ballot.verdict == "undo":
        return redirect(request, f"/task/{ballot.task}")
    return redirect(request, "/")


@router.get("/mine")
def show_own_answers(request: Request, person: Annotator) -> Response:
    """The annotator's own answers."""
    answers = store_of(request).recent_answers(person)
    return _annotator_page(request, person, "mine", answers=answers)


@router.get("/guidelines")
def show_guidelines(request: Request, person: Annotator) -> Response:
    """What is to be read before the first task."""
    introduction = _require_introduction(request)
    return _annotator_page(
        request,
        person,
        "guidelines",
        guidelines=guidelines_to_html(introduction.guidelines),
        num_examples=len(introduction.examples),
        is_introduced=store_of(request).is_introduced(person, introduction.digest),
    )


@router.post("/guidelines")
def finish_introduction(csrf: CsrfToken, request: Request, person: Annotator) -> Response:
    """Remember that somebody has read it, and go on to the tasks."""
    check_csrf(csrf, request, "annotator")
    store_of(request).set_introduced(person, _require_introduction(request).digest)
    return redirect(request, "/")


@router.get("/examples/{number}")
def show_example(number: TaskNumber, request: Request, person: Annotator) -> Response:
    """An example to answer; it is no vote."""
    example = _find_example(request, number)
    return _example_page(request, person, "task", number, example, task=_as_task(example, number))


@router.post("/examples/{number}")
def check_example(
    number: TaskNumber,
    ballot: Annotated[Ballot, Form()],
    request: Request,
    person: Annotator,
) -> Response:
    """The right answer to an example, beside the one that was given."""
    check_csrf(ballot.csrf, request, "annotator")
    example = _find_example(request, number)
    answer = ballot.answer(example, campaign_of(request).flags)
    return _example_page(
        request,
        person,
        "example",
        number,
        example,
        answer=answer,
        is_right=example.is_right(answer),
        is_introduced=store_of(request).is_introduced(person, introduction_of(request).digest),
    )


def _require_introduction(request: Request) -> Introduction:
    """The introduction, or status 404 if there is none."""
    introduction = introduction_of(request)
    if not introduction.digest:
        raise HTTPException(404)
    return introduction


def _find_example(request: Request, number: int) -> Example:
    """The ``number``-th example, or status 404."""
    examples = introduction_of(request).examples
    if number > len(examples):
        raise HTTPException(404)
    return examples[number - 1]


def _as_task(example: Example, number: int) -> AssignedTask:
    """The example as a task that was never answered."""
    return AssignedTask(
        id=0,
        number=number,
        kind=example.kind,
        prompt=example.prompt,
        responses=example.responses,
        order=example.order,
        since=0.0,
        revision=1,
        verdict="undo",
        answer={},
        note="",
    )


def _example_page(
    request: Request, person: int, template: str, number: int, example: Example, **values: Any
) -> Response:
    num_examples = len(introduction_of(request).examples)
    return _annotator_page(
        request,
        person,
        template,
        example=example,
        number=number,
        num_examples=num_examples,
        **values,
    )


def _annotator_page(
    request: Request, person: int, template: str, status_code: int = 200, **values: Any
) -> Response:
    """With the bar on top: the annotator's progress, and the answer that can be taken back."""
    store = store_of(request)
    done, left, seconds = store.progress(person)
    has_ended = store.has_ended
    last_answers = [] if has_ended else store.recent_answers(person, limit=1)
    return show_page(
        request,
        template,
        status_code,
        csrf=csrf_token(request, "annotator"),
        done=done,
        left=0 if has_ended else left,
        seconds=seconds,
        last=last_answers[0] if last_answers else None,
        has_introduction=bool(introduction_of(request).digest),
        **values,
    )
