"""Downloads of admins: votes and labels in several formats."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from lit_align.data.formats.groups import as_row
from lit_align.errors import LitAlignError
from lit_align.labelling.aggregation import drop_unreliable, labelled_groups
from lit_align.labelling.social_choice import Ranking
from lit_align.labelling.vote_exports import (
    argilla_records,
    label_studio_tasks,
    vote_rows,
    vote_table,
)
from lit_align.labelling.votes import read_votes
from lit_align.labelling.web import Admin, campaign_of, json_lines, show_page, store_of

Method = Literal["majority", "share", "dawid_skene"]

router = APIRouter(prefix="/admin")


@router.get("/votes.jsonl")
def export_votes(request: Request, person: Admin) -> Response:
    """Every answer ever given, as JSON lines."""
    return json_lines(vote_rows(read_votes(store_of(request).path)))


@router.get("/votes.csv")
def export_table(request: Request, person: Admin) -> Response:
    """The answers that stand, as a table."""
    data = read_votes(store_of(request).path)
    content = vote_table(data, campaign_of(request).flags).encode("utf-8-sig", errors="replace")
    return Response(content, media_type="text/csv")


@router.get("/groups.jsonl")
def export_groups(
    request: Request,
    person: Admin,
    method: Annotated[Method, Query(alias="how")] = "share",
    min_gold_accuracy: Annotated[float, Query(ge=0, le=1, alias="least")] = 0.0,
    ranking: Ranking = "borda",
) -> Response:
    """Groups with their labels, as JSON lines that training reads."""
    data = drop_unreliable(read_votes(store_of(request).path), min_gold_accuracy)
    try:
        rows = [as_row(group) for _, group in labelled_groups(data, method, ranking)]
    except LitAlignError as error:
        return show_page(request, "notice", 422, sentence=f"{error}.")
    return json_lines(rows)


@router.get("/argilla.json")
def export_argilla(request: Request, person: Admin) -> Response:
    """Comparisons and rankings as records of Argilla."""
    return _tool_json(request, argilla_records)


@router.get("/label_studio.json")
def export_label_studio(request: Request, person: Admin) -> Response:
    """Comparisons as tasks of Label Studio."""
    return _tool_json(request, label_studio_tasks)


def _tool_json(request: Request, to_rows: Any) -> Response:
    """A JSON list of what the votes are for another tool, or a page that says why there is none."""
    try:
        rows = to_rows(read_votes(store_of(request).path))
    except LitAlignError as error:
        return show_page(request, "notice", 422, sentence=f"{error}.")
    content = json.dumps(rows, ensure_ascii=False, indent=1).encode(errors="replace")
    return Response(content, media_type="application/json")
