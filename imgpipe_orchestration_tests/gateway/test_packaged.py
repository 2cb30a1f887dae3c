"""What comes in a package and goes to browsers: once, and nothing else from the folder."""

from __future__ import annotations

import pytest

from imgpipe_orchestration_tests.media.conftest import Gateway


@pytest.mark.parametrize("path", ["/static/style.css", "/components/components.css", "/docs/swagger-ui.css"])
def test_a_browser_that_has_the_file_is_not_sent_it_again(gateway: Gateway, path: str) -> None:
    first = gateway.get(path)
    assert (first.status_code, first.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    again = gateway.get(path, **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Cache-Control"] == first.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/static/none.css", "/components/routes.py", "/docs/favicon.png"])
def test_a_folder_gives_browsers_what_is_made_for_them_and_nothing_else(gateway: Gateway, path: str) -> None:
    assert gateway.get(path).status_code == 404
