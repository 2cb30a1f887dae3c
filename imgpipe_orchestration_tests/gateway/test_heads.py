"""HEAD on every kind of answer, which says what GET says; and files that come in a package, which go out once."""

import pytest

from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway


@pytest.mark.parametrize(
    "path", ["/", "/media", "/docs", "/openapi.json", "/health", "/api/media/search", "/media/7", "/no/such/page"]
)
def test_head_says_what_get_says(gateway: Gateway, path: str) -> None:
    get = gateway.session.get(gateway.url + path, timeout=20)
    head = gateway.session.head(gateway.url + path, timeout=20)
    assert (head.status_code, head.content) == (get.status_code, b"")
    changes = {"date", "traceparent", "set-cookie", "content-security-policy"}
    assert set(head.headers) == set(get.headers)
    assert {k: v for k, v in head.headers.items() if k not in changes} == {
        k: v for k, v in get.headers.items() if k not in changes
    }


def test_the_head_of_a_stream_without_end_is_answered_and_the_connection_goes_on(gateway: Gateway) -> None:
    for _ in range(2):
        head = gateway.session.head(f"{gateway.url}/events", timeout=30)
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    # Its answer is there before the stream behind it ends, and with that is counted.
    count = 'imgpipe_http_requests_total{method="HEAD",route="/events",status="200"} 2.0'
    wait_for(lambda: count in gateway.get("/metrics").text, "both to be counted")


@pytest.mark.parametrize("path", ["/static/style.css", "/components/components.css", "/docs/swagger-ui.css"])
def test_a_browser_that_has_the_file_is_not_sent_it_again(gateway: Gateway, path: str) -> None:
    first = gateway.get(path)
    assert (first.status_code, first.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    again = gateway.get(path, **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Cache-Control"] == first.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/static/none.css", "/components/routes.py", "/docs/none.css"])
def test_a_folder_gives_browsers_what_is_made_for_them_and_nothing_else(gateway: Gateway, path: str) -> None:
    assert gateway.get(path).status_code == 404
