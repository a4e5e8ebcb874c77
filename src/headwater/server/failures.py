"""What goes wrong, as the API says it: `{"error": {"wrong", "expected", "found", "do"}}`, a status.

Whatever raises it, ours, the framework's or a defect, it reads the same.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from headwater.engine.errors import BusyError, HeadwaterError, InputError, ResourceError
from headwater.server.explore_routes import JSON, json_answer
from headwater.server.jobs import Missing, QueueFull
from headwater.server.schema_words import Schema
from headwater.server.streams import Defect
from headwater.server.told import as_json, defect, failure
from headwater.server.unfit import no_json, unfit, unfit_parameter


def add_handlers(app: FastAPI) -> None:
    """Each handler is only given what it is registered for."""

    async def ours(_: Request, error: Any) -> Response:
        return json_answer(as_json({"error": failure(error)}), status_of(error))

    async def invalid(request: Request, error: Any) -> Response:
        return json_answer(as_json({"error": failure(_invalid(request, error))}), 422)

    async def http(request: Request, error: Any) -> Response:
        told = as_json({"error": failure(_http(request, error))})
        return json_answer(told, error.status_code)

    async def other(_: Request, error: Exception) -> Response:
        return json_answer(as_json({"error": defect(error)}), 500)

    app.add_exception_handler(HeadwaterError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, other)


def status_of(error: HeadwaterError) -> int:
    """The HTTP status that says what kind of failure it is."""
    if isinstance(error, QueueFull):
        return 429
    if isinstance(error, Missing):
        return 404
    if isinstance(error, BusyError | ResourceError):
        return 503
    return 500 if isinstance(error, Defect) else 400


def _invalid(request: Request, error: RequestValidationError) -> InputError:
    """What FastAPI refuses before a route is reached: no JSON, or what the route does not take."""
    errors = error.errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        return no_json(str(error.body), int(first["loc"][-1]), str(first["ctx"]["error"]))
    told = request.app.openapi()
    definitions: Schema = told.get("components", {}).get("schemas", {})
    route = request.scope.get("route")
    path = told["paths"].get(getattr(route, "path_format", ""), {})
    taken: Schema = path.get(request.method.lower(), {})
    if first["loc"][0] != "body":
        known = {one["name"]: one["schema"] for one in taken.get("parameters", ())}
        return unfit_parameter(first, known.get(first["loc"][-1]), definitions)
    schema: Schema = taken.get("requestBody", {}).get("content", {}).get(JSON, {}).get("schema", {})
    if not isinstance(error.body, dict):  # whichever object it should have been
        schema = {"type": "object"}
    bare = [{**one, "loc": one["loc"][1:]} for one in errors]
    return unfit(bare, error.body, schema, definitions)


def _http(request: Request, error: HTTPException) -> HeadwaterError:
    """What the framework has no kind of its own for."""
    if error.status_code == 405:
        taken = (error.headers or {}).get("Allow")
        return InputError(f"{request.method} is not taken here", expected=taken)
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        found = f"a byte that is none at {cause.start + 1:,}"
        return InputError("The body is not JSON", expected="text in UTF-8", found=found)
    if isinstance(cause, RecursionError):
        return InputError(
            "The body is not JSON that can be read",
            expected="a few lists and objects within each other",
            found="more than a thousand",
        )
    return HeadwaterError(error.detail)
