"""Routes of the exploring half: maps, query sets, boards, exports; a few lines each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from headwater.engine.errors import InputError
from headwater.server import boards, explore_schemas, exports, query_sets
from headwater.server.streams import done
from headwater.server.told import as_json

if TYPE_CHECKING:
    from headwater.server.workbench import Workbench

router = APIRouter()
Filter = Annotated[str, Query(alias="filter", max_length=2000)]
Column = Annotated[str, Query(max_length=300)]
MOST = 200  # rows of a page
JSON = "application/json"


def _workbench(request: Request) -> Workbench:
    return request.app.state.workbench


async def _reading(request: Request, work: Any) -> Any:
    """`work` in the lane of readers, so that it holds up nobody."""
    return await done(request.app.state.jobs, "reader", work, request.is_disconnected)


def json_answer(text: str, status: int = 200) -> Response:
    """What is JSON already."""
    return Response(text.encode(), status_code=status, media_type=JSON)


def _file(made: exports.File) -> Response:
    named = {"content-disposition": f'attachment; filename="{made.name}"'}
    return Response(made.content, media_type=made.media, headers=named)


@router.get("/api/map")
async def places(request: Request, index: Column, of: Column = "features") -> Response:
    """All x, then all y: little-endian float32, NaN for an example without a place."""
    from headwater.server.maps import read_map

    workbench = _workbench(request)
    found = await _reading(request, lambda: read_map(workbench.index(index), of))
    return Response(found.astype("<f4").tobytes(), media_type="application/octet-stream")


@router.get("/api/map/ids")
async def place_ids(request: Request, index: Column, of: Column = "features") -> Response:
    """The ids of the examples, in the same order."""
    from headwater.server.maps import map_store

    workbench = _workbench(request)

    def ids() -> list[str]:
        map_store(workbench.index(index), of)
        return workbench.index(index).ids

    return json_answer(as_json(await _reading(request, ids)))


@router.get("/api/query-sets/{name}")
async def query_set(
    request: Request,
    name: str,
    wanted: Filter = "",
    sort: Column = "",
    descending: bool = False,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=0, le=MOST)] = 25,
) -> Response:
    """A page of a set."""
    sets = query_sets.of(_workbench(request))

    def page() -> str:
        found = sets.get(name)
        return as_json(found.page(wanted, sort, descending=descending, offset=offset, limit=limit))

    text = await _reading(request, page)
    return json_answer(text)


@router.post("/api/query-sets")
async def upload(request: Request, asked: explore_schemas.Upload) -> Response:
    """Take a set in."""
    sets = query_sets.of(_workbench(request))
    made = await _reading(request, lambda: sets.upload(asked.name, asked.lines))
    told = {"name": made.name, "rows": len(made.entries)}
    told |= {"problems": made.problems, "problem_count": made.problem_count}
    return json_answer(as_json(told))


@router.get("/api/query-sets/{name}/export")
async def export_set(
    request: Request, name: str, format: Column = "jsonl", wanted: Filter = ""
) -> Response:
    """A set as a file, in the names of PAIR's viewer or in ours."""
    sets = query_sets.of(_workbench(request))
    return _file(await _reading(request, lambda: sets.get(name).export(format, wanted)))


@router.get("/api/boards/{name}")
async def board(request: Request, name: str) -> Response:
    """A board of an evaluation."""
    workbench = _workbench(request)
    found = await _reading(request, lambda: boards.board(workbench.boards, name))
    return json_answer(as_json(found))


@router.post("/api/export")
async def export(request: Request, asked: explore_schemas.Export) -> Response:
    """An answer, or a selection of examples, as a file."""
    if asked.what == "answer":
        if asked.answer is None:
            raise InputError("There is no answer to export", expected="answer")
        work = lambda: exports.answer_file(asked.answer, asked.format)  # noqa: E731
    else:
        if asked.rows is None:
            raise InputError("There is no selection to export", expected="rows")
        work = lambda: exports.selection_file(asked.rows or [], asked.format)  # noqa: E731
    return _file(await _reading(request, work))
