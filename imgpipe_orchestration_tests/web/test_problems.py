"""Errors are problem documents whose type and title belong together."""

import json
from http import HTTPStatus

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, SecretStr, ValidationError
from starlette.exceptions import HTTPException

from imgpipe_orchestration.errors import BadImage, ImgpipeError, NotFound, RateLimited
from imgpipe_orchestration.media.analyses import Correction
from imgpipe_orchestration.vision_reports.routes import CronJobChange
from imgpipe_orchestration.web.problems import of_error, of_http, of_invalid


@pytest.mark.parametrize("error", [BadImage("not an image"), NotFound("gone"), RateLimited("later", retry_after=3)])
def test_a_title_of_ours_has_a_type_of_ours(error: ImgpipeError) -> None:
    body = json.loads(bytes(of_error(error).body))
    assert (body["status"], body["title"], body["code"]) == (error.status, error.title, error.code)
    own = error.title != HTTPStatus(error.status).phrase
    assert body["type"] == (f"urn:imgpipe:problem:{error.code}" if own else "about:blank")


def test_an_error_of_the_framework_has_its_status_phrase_and_no_type() -> None:
    body = json.loads(bytes(of_http(HTTPException(405), "/nowhere").body))
    assert (body["type"], body["title"]) == ("about:blank", "Method Not Allowed")


@pytest.mark.parametrize(
    ("body", "given", "told"),
    [
        (CronJobChange, {"external_api_key": ""}, "Value should have at least 1 character"),
        (CronJobChange, {"external_api_key": SecretStr("x" * 8001)}, "Value should have at most 8000 characters"),
        (Correction, {"alt_text": "x" * 2001}, "Value should have at most 2000 characters"),
        (Correction, {"brand_colors": ["#000000"] * 31}, "List should have at most 30 items after validation, not 31"),
    ],
)
def test_the_length_of_a_text_is_told_in_characters(body: type[BaseModel], given: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        body.model_validate(given)
    problem = json.loads(bytes(of_invalid(RequestValidationError(caught.value.errors())).body))
    assert problem["errors"] == [{"field": next(iter(given)), "message": told}]
