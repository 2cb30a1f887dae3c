"""HEAD on every kind of answer, which says what GET says; and files that come in a package, which go out once."""

from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway


def test_head_says_what_get_says(gateway: Gateway) -> None:
    changes = {"date", "traceparent", "set-cookie", "content-security-policy"}
    for path in ("/", "/media", "/docs", "/openapi.json", "/health", "/api/media/search", "/media/7", "/no/such/page"):
        get, head = gateway.get(path), gateway.session.head(gateway.url + path, timeout=30)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert set(head.headers) == set(get.headers), path
        differs = {name for name, value in head.headers.items() if get.headers[name] != value}
        assert {name.lower() for name in differs} <= changes, path


def test_the_head_of_a_stream_without_end_is_answered_and_the_connection_goes_on(gateway: Gateway) -> None:
    for _ in range(2):
        head = gateway.session.head(f"{gateway.url}/events", timeout=30)
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    # Its answer is there before the stream behind it ends, and with that is counted.
    count = 'imgpipe_http_requests_total{method="HEAD",route="/events",status="200"} 2.0'
    wait_for(lambda: count in gateway.get("/metrics").text, "both to be counted")


def test_browsers_get_what_is_made_for_them_and_nothing_else_and_not_again_what_they_have(gateway: Gateway) -> None:
    for path in ("/static/style.css", "/components/components.css", "/docs/swagger-ui.css"):
        first = gateway.get(path)
        assert (first.status_code, first.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
        etag = first.headers["ETag"]
        for known in (etag, f'"other", W/{etag}'):  # the second: through a proxy
            again = gateway.get(path, **{"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["Cache-Control"] == first.headers["Cache-Control"]
        assert gateway.get(path, **{"If-None-Match": '"other"'}).status_code == 200
    for path in ("/static/none.css", "/components/routes.py", "/docs/none.css"):
        assert gateway.get(path).status_code == 404
