"""The HTTP API and the app's files: routes of a few lines, everything below relative addresses.

What goes wrong reads as on the command line: see `failures.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import ValidationError

from headwater import __version__
from headwater.engine.errors import InputError
from headwater.server import described, explore_routes, exploring, reading, schemas
from headwater.server.admission import Settings
from headwater.server.asking import KINDS
from headwater.server.explore_routes import JSON, json_answer
from headwater.server.failures import add_handlers
from headwater.server.job import Job
from headwater.server.jobs import Jobs, Kind, Missing
from headwater.server.security import Guard
from headwater.server.static import Assets
from headwater.server.streams import done, ended, events
from headwater.server.told import as_json
from headwater.server.unfit import shown, unfit
from headwater.server.workbench import Workbench

LONGEST_WAIT = 60.0  # seconds
UNSEEN = 3.0  # seconds without a first screen after which things are made ready anyway
LONGEST_ID = 18  # digits of the number of an event


def create_app(
    workbench: Workbench,
    settings: Settings,
    *,
    assets: Assets | None = None,
    jobs: Jobs | None = None,
) -> FastAPI:
    """The server of a workbench, guarded; run it with any ASGI server."""
    jobs = Jobs(workbench) if jobs is None else jobs

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncGenerator[None]:
        later = asyncio.get_running_loop().call_later(UNSEEN, jobs.get_ready)
        yield
        later.cancel()
        jobs.close()

    app = FastAPI(
        title="Headwater",
        version=__version__,
        lifespan=living,
        docs_url=None,  # its pages come from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.workbench, app.state.jobs, app.state.settings = workbench, jobs, settings
    app.state.kinds = all_kinds()
    add_handlers(app)
    _jobs_routes(app, jobs)
    _index_routes(app, jobs, workbench, settings)
    app.include_router(explore_routes.router)
    _page_routes(app, assets or Assets())
    app.add_middleware(Guard, settings=settings)
    return app


def all_kinds() -> dict[str, Kind]:
    """The kinds of work of all parts of the server."""
    return {**KINDS, **exploring.KINDS}


# -- work ---------------------------------------------------------------------------------


def _jobs_routes(app: FastAPI, jobs: Jobs) -> None:
    kinds, definitions = _kinds_schema(app.state.kinds)
    _define(app, definitions)

    @app.post("/api/jobs", status_code=202, openapi_extra=_one_of(kinds))
    async def post(
        asked: Annotated[dict[str, Any], Body()],
        wait: Annotated[float | None, Query(ge=0, le=LONGEST_WAIT)] = None,
    ) -> Response:
        """Queue work of a kind; with `wait`, its result if it ends within so many seconds."""
        job = submit(app, asked)
        if wait is not None and await ended(jobs, job, wait):
            return json_answer(job.to_json())
        return json_answer(as_json({"id": job.id}), 202)

    @app.get("/api/jobs/{name}")
    async def get(name: str) -> Response:
        """What became of a job."""
        return json_answer(_job(jobs, name).to_json())

    @app.get("/api/jobs/{name}/events")
    async def follow(name: str, request: Request) -> Response:
        """The same as server-sent events, until it ends."""
        last = request.headers.get("last-event-id", "0")
        known = last.isdecimal() and len(last) <= LONGEST_ID
        stream = events(jobs, _job(jobs, name), int(last) if known else 0)
        headers = {"x-accel-buffering": "no"}  # proxies would hold the events back
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    @app.delete("/api/jobs/{name}")
    async def cancel(name: str) -> Response:
        """Nobody wants it any more."""
        job = _job(jobs, name)
        jobs.cancel(job)
        return json_answer(job.to_json())


def submit(app: FastAPI, asked: dict[str, Any]) -> Job:
    """Queue what a request asks for; raises InputError for what is no work of ours."""
    kinds, name = app.state.kinds, asked.get("kind")
    if "kind" not in asked:
        found = ", ".join(asked)[:100] or "an empty object"
        raise InputError("The field kind is missing", expected=", ".join(kinds), found=found)
    if not isinstance(name, str) or name not in kinds:
        wrong = "There is no such kind of work"
        raise InputError(wrong, expected=", ".join(kinds), found=shown(name))
    given = {key: value for key, value in asked.items() if key != "kind"}
    try:
        request = kinds[name][0].model_validate(given)
    except ValidationError as error:
        schema = kinds[name][0].model_json_schema()
        definitions = schema.get("$defs", {})
        raise unfit(error.errors(include_url=False), given, schema, definitions) from None
    return app.state.jobs.submit(name, request, kinds)


def _job(jobs: Jobs, name: str) -> Job:
    job = jobs.get(name)
    if job is None:
        raise Missing("This work is not known any more", do="ask again")
    return job


# -- indexes ------------------------------------------------------------------------------


def _index_routes(app: FastAPI, jobs: Jobs, workbench: Workbench, settings: Settings) -> None:
    @app.get("/api/session")
    def session() -> Response:
        """What is served, and what it can be asked for; it waits for no lane."""
        told = as_json(described.session(workbench, settings.upload_bytes, jobs.queue))
        jobs.get_ready()
        return json_answer(told)

    @app.get("/api/indexes/{name}/documents/{position}")
    async def document(request: Request, name: str, position: int, around: int = 2) -> Response:
        """An example and its neighbours."""
        work = lambda: reading.document(workbench, name, position, around)  # noqa: E731
        return json_answer(as_json(await done(jobs, "reader", work, request.is_disconnected)))

    @app.get("/api/indexes/{name}/documents")
    async def documents(
        request: Request,
        name: str,
        wanted: Annotated[str, Query(alias="filter", max_length=2000)] = "",
        offset: int = 0,
        limit: int = 50,
    ) -> Response:
        """Examples that pass a filter."""
        work = lambda: reading.documents(workbench, name, wanted, offset, limit)  # noqa: E731
        return json_answer(as_json(await done(jobs, "reader", work, request.is_disconnected)))

    @app.post("/api/indexes/{name}/load", status_code=202)
    async def load(name: str, asked: schemas.Load) -> Response:
        """Say yes to a model that somebody else's index names, and load it."""
        if not asked.trust:
            raise InputError("A model is loaded on a yes only", expected='{"trust": true}')
        workbench.trust(name)
        job = submit(app, {"kind": "load", "index": name})
        return json_answer(as_json({"id": job.id}), 202)

    @app.get("/api/scores")
    async def scores(request: Request, key: Annotated[str, Query(max_length=64)]) -> Response:
        """A score vector: little-endian float32, one for each example, NaN where there is none."""
        asked = workbench.scores_request(key)
        lane = workbench.scores_lane(asked["method"])
        work = lambda: workbench.scores(**asked)  # noqa: E731
        found = await done(jobs, lane, work, request.is_disconnected)
        return Response(found.astype("<f4").tobytes(), media_type="application/octet-stream")


# -- the app -------------------------------------------------------------------------------


def _page_routes(app: FastAPI, assets: Assets) -> None:
    @app.get("/{name:path}", include_in_schema=False)
    def page(name: str) -> Response:
        """A file of the app."""
        found = None if name.startswith("api/") else assets.respond(name)
        if found is None:
            raise Missing("There is no such page")
        return found


Schemas = dict[str, dict[str, Any]]


def _kinds_schema(kinds: dict[str, Kind]) -> tuple[list[dict[str, Any]], Schemas]:
    """What the body of a job may be, for OpenAPI: a schema of each kind; what they refer to."""
    options: list[dict[str, Any]] = []
    definitions: Schemas = {}
    for name, (request, _, _) in kinds.items():
        one = request.model_json_schema(ref_template="#/components/schemas/{model}")
        definitions |= one.pop("$defs", {})
        one["properties"] = {"kind": {"const": name}, **one.get("properties", {})}
        one["required"] = ["kind", *one.get("required", [])]
        options.append({**one, "title": name})
    return options, definitions


def _one_of(options: list[dict[str, Any]]) -> dict[str, Any]:
    return {"requestBody": {"content": {JSON: {"schema": {"oneOf": options}}}, "required": True}}


def _define(app: FastAPI, definitions: Schemas) -> None:
    """Have the API's description hold these schemas beside those of the routes."""
    made = app.openapi

    def described() -> dict[str, Any]:
        told = made()
        schemas: Schemas = told.setdefault("components", {}).setdefault("schemas", {})
        schemas |= definitions
        return told

    app.openapi = described
