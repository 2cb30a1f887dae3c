"""The OpenAPI document: FastAPI's, with the problems that each route may answer and an example of every body.

Most problems follow from the request (a key: 401; an id in the path: 404; a body: 413); ALSO adds the others, route by
route. Examples of bodies are made from their schemas, with the values of `openapi_examples.json` by field; it has whole
bodies where a schema says too little. Tests compare them.
"""

import json
from importlib.resources import files
from types import UnionType
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from imgpipe_orchestration.errors import (
    BackendUnavailable,
    BadImage,
    BadInput,
    Conflict,
    Forbidden,
    Gone,
    ImgpipeError,
    NotFound,
    OutOfSpace,
    TooLarge,
    Unauthenticated,
)
from imgpipe_orchestration.gateway.bodies import TooSlow
from imgpipe_orchestration.gateway.limits import TooManyRequests
from imgpipe_orchestration.web.problems import MEDIA_TYPE, of_error

OF_IMAGES = ("{media_id}", "{image_id}", "/listing-images/", "/temp_images/")
"""Parts of paths that name an image, which may have been deleted."""

ALSO: dict[str, tuple[int, ...]] = {
    "DELETE /api/media/cleanup/{image_id}": (409,),
    "GET /api/media/search": (404,),
    "GET /batch-analysis/batches/{batch_id}/report": (409,),
    "PATCH /users/me": (507,),
    "POST /api/avatars/tasks/{task_id}/cancel": (409,),
    "POST /api/avatars/tasks/{task_id}/retry-failed": (409,),
    "POST /api/media/complete/{image_id}": (409,),
    "POST /api/media/uploads": (413,),
    "POST /api/media/uploads/{upload_id}/commit": (409, 410, 413, 415, 507),
    "POST /api/upload/listing_image": (507,),
    "POST /batch-analysis/batches": (404,),
    "POST /batch-analysis/images": (507,),
    "POST /debug/upload-test-image": (404, 507),
    "PUT /api/media/focus/{media_id}": (409,),
    "DELETE /api/budgets": (404, 409),
    "POST /api/keys": (409,),
    "POST /api/media/bulk": (404,),
}
"""Problems of single routes: a state that forbids the request, a file that is not an image, a full disk, an unknown id
or path in the query or the body."""

_SCHEMA = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "In words for people: what is wrong and what to do."},
        "code": {"type": "string", "description": "Stable, for programs."},
        "field": {"type": "string", "description": "What part of the request is wrong."},
        "errors": {
            "type": "array",
            "description": "All that is wrong with the request; the first one is in `field` and `detail` too.",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}

_PROBLEMS: dict[int, tuple[type[ImgpipeError], str, str]] = {
    400: (BadInput, "Unreadable, or an unknown value", "size must be one of thumbnail, small, grid."),
    401: (Unauthenticated, "No key, or the wrong one", "Send `Authorization: Bearer <key>`."),
    403: (Forbidden, "Not allowed here", "This needs the role operator; yours is viewer."),
    404: (NotFound, "Not found", "There is no media 77."),
    408: (TooSlow, "The body took too long to arrive", "The request's body did not arrive in time."),
    409: (Conflict, "Not possible in its present state", "The task is completed; it cannot be cancelled."),
    410: (Gone, "Deleted, or expired", "This upload has expired; announce it again."),
    413: (TooLarge, "Too large", "The file is larger than 5 MB."),
    415: (BadImage, "Not a usable image, or a compressed body", "me.jpg is not an image that can be read."),
    422: (BadInput, "The request is invalid", "count: Input should be less than 1000"),
    429: (TooManyRequests, "Too many requests; Retry-After says when to try again", "Try again in 12 s."),
    503: (
        BackendUnavailable,
        "A backend is unavailable; Retry-After says when to try again",
        "The database cannot be reached.",
    ),
    507: (OutOfSpace, "Storage is full", "The object store is full; nothing was kept."),
}
"""By status: an error, what the status means, and what the error may say."""


def described(app: FastAPI) -> dict[str, Any]:
    """The app's OpenAPI document."""
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    examples = json.loads((files(__package__) / "openapi_examples.json").read_text("utf-8"))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path}"
            _name_problems(name, path, operation)
            _add_examples(operation, examples.get(name, {}), document["components"]["schemas"], examples["fields"])
            _name_operation(operation)
    components = document["components"]
    components["schemas"]["Problem"] = _SCHEMA
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["responses"] = {f"Problem{status}": _problem(status) for status in _PROBLEMS}
    return document


def _name_operation(operation: dict[str, Any]) -> None:
    """Make the docstring's first sentence the summary, for which FastAPI takes the function's name. Without backticks,
    because viewers render descriptions as Markdown but not summaries."""
    described = operation.get("description", "")
    sentence = " ".join(described.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")
    if sentence:
        operation["summary"] = sentence.replace("`", "")
    if described.rstrip(".") == sentence:
        operation.pop("description", None)


def _name_problems(name: str, path: str, operation: dict[str, Any]) -> None:
    wanted = {503, *ALSO.get(name, ())}
    if operation.get("security"):
        wanted |= {401, 403, 429}
    if "{" in path:
        wanted.add(404)
    if any(part in path for part in OF_IMAGES):
        wanted.add(410)
    if operation.get("parameters") or "requestBody" in operation:
        wanted.add(422)
    if "requestBody" in operation:
        wanted |= {400, 408, 413, 415}
    told: dict[str, Any] = operation["responses"]
    if "HTTPValidationError" in str(told.get("422")):
        del told["422"]  # FastAPI's own shape, which none of our routes answers with
    wanted |= {int(status) for status in told if status.isdecimal() and int(status) in _PROBLEMS}
    for status in wanted:
        reference = {"$ref": f"#/components/responses/Problem{status}"}
        if str(status) not in told:
            told[str(status)] = reference
            continue
        # What the route itself declares for this status stays, the problem's content is added.
        own, general = told[str(status)], _problem(status)
        told[str(status)] = {**general, **own, "content": {**own.get("content", {}), **general["content"]}}
    operation["responses"] = {status: told[status] for status in sorted(told)}


def _problem(status: int) -> dict[str, Any]:
    kind, description, detail = _PROBLEMS[status]
    example = json.loads(bytes(of_error(kind(detail)).body)) | {"status": status}
    schema = {"$ref": "#/components/schemas/Problem"}
    answer: dict[str, Any] = {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
    }
    if status in {429, 503}:
        answer["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    if status == 401:
        answer["headers"] = {"WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}}}
    return answer


def _add_examples(
    operation: dict[str, Any], examples: dict[str, Any], schemas: dict[str, Any], fields: dict[str, Any]
) -> None:
    places = {"request": operation.get("requestBody", {})}
    places["response"] = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
    for kind, place in places.items():
        for media_type, content in place.get("content", {}).items():
            if kind in examples:
                content["example"] = examples[kind]
            elif media_type == "application/json" and "schema" in content:
                content["example"] = _example(content["schema"], "", schemas, fields)


_PLAIN: dict[str, tuple[type | UnionType, Any]] = {
    "string": (str, "text"),
    "integer": (int, 1),
    "number": (int | float, 1),
    "boolean": (bool, True),
    "object": (dict, {}),
}
"""JSON's types: Python's, and an example."""


def _example(schema: dict[str, Any], name: str, schemas: dict[str, Any], fields: dict[str, Any]) -> Any:
    """An example of what `schema` describes, in the field `name`; `fields` has values by name."""
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].rpartition("/")[2]], name, schemas, fields)
    if known := [
        *schema.get("examples", ()),
        *schema.get("enum", ()),
        *([schema["const"]] if "const" in schema else ()),
    ]:
        return known[0]
    if options := schema.get("anyOf"):
        return _example(next(one for one in options if one.get("type") != "null"), name, schemas, fields)
    if "properties" in schema:
        return {field: _example(part, field, schemas, fields) for field, part in schema["properties"].items()}
    if schema.get("type") == "array":
        return [_example(schema["items"], name, schemas, fields)] if "items" in schema else []
    kind, plain = _PLAIN.get(schema.get("type", ""), (object, None))
    return fields[name] if name in fields and isinstance(fields[name], kind) else plain
