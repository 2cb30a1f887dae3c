"""Errors are problem documents whose type and title belong together."""

import json
from http import HTTPStatus

import pytest
from starlette.exceptions import HTTPException

from imgpipe_orchestration.errors import BadImage, ImgpipeError, NotFound, RateLimited
from imgpipe_orchestration.web.problems import of_error, of_http


@pytest.mark.parametrize("error", [BadImage("not an image"), NotFound("gone"), RateLimited("later", retry_after=3)])
def test_a_title_of_ours_has_a_type_of_ours(error: ImgpipeError) -> None:
    body = json.loads(bytes(of_error(error).body))
    assert (body["status"], body["title"], body["code"]) == (error.status, error.title, error.code)
    own = error.title != HTTPStatus(error.status).phrase
    assert body["type"] == (f"urn:imgpipe:problem:{error.code}" if own else "about:blank")


def test_an_error_of_the_framework_has_its_status_phrase_and_no_type() -> None:
    body = json.loads(bytes(of_http(HTTPException(405), "/nowhere").body))
    assert (body["type"], body["title"]) == ("about:blank", "Method Not Allowed")
