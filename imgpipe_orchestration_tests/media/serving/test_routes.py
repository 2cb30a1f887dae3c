"""Images over HTTP: caching, conditions, ranges, sizes, and a cache that is never wrong for long."""

import io
import re
from collections.abc import Callable, Iterator

import pytest
import requests
from PIL import Image, ImageDraw

from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.media.remake import make_variants
from imgpipe_orchestration.operations.tidying import collect_garbage
from imgpipe_orchestration_tests.conftest import S3Access, fresh_database, settings_for
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, gateways, picture
from imgpipe_orchestration_tests.media.worker import today
from imgpipe_orchestration_tests.parts import stop

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def shown(
    postgres_server: Postgres, s3: S3Access, mongo_server: Mongo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway with a finished photo (media 1) and a finished logo (media 2), which no test changes."""
    with fresh_database(postgres_server) as database:
        settings = settings_for(database, s3, f"{mongo_server.url}/shown", tmp_path_factory.mktemp("shown"))
        with gateways(settings) as make:
            yield with_images(make())


@pytest.fixture
def alone(gateway: Gateway) -> Gateway:
    """The same, of the test's own."""
    return with_images(gateway)


def with_images(gateway: Gateway) -> Gateway:
    gateway.finish(1, profile_image=picture(480, 360, seed=5), logo_image=drawn_logo())
    return gateway


def drawn_logo() -> bytes:
    """A small logo on a plain ground."""
    image = Image.new("RGB", (120, 80), "#f4f1ea")
    ImageDraw.Draw(image).ellipse((30, 10, 90, 70), fill="#c8402f")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_the_two_urls_differ_in_their_caching_only(shown: Gateway) -> None:
    serve, image = shown.get("/serve/1?size=grid"), shown.get("/api/images/1?size=grid")
    assert serve.content == image.content
    assert serve.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert image.headers["cache-control"] == "public, max-age=3600"


@pytest.mark.parametrize("path", ["/serve/1", "/api/images/1"])
def test_a_page_of_another_origin_may_send_conditions_and_ranges(shown: Gateway, path: str) -> None:
    asks = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    answer = shown.session.options(
        shown.url + path, headers={**asks, "Access-Control-Request-Headers": "if-none-match,range"}, timeout=10
    )
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
    assert {"If-None-Match", "Range"} <= set(answer.headers["access-control-allow-headers"].split(", "))


@pytest.mark.parametrize("path", ["/serve/1", "/serve/1?size=nope", "/serve/99", "/api/images/2?size=small"])
def test_every_negotiated_answer_varies_and_no_explicit_one_does(shown: Gateway, path: str) -> None:
    assert shown.get(path).headers["vary"] == "Accept"
    joint = "&" if "?" in path else "?"
    assert "vary" not in shown.get(f"{path}{joint}format=webp").headers
    assert shown.get(f"{path}{joint}utm_format=webp").headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("path", "if_none_match", "status"),
    [
        ("/serve/1", "", 200),
        ("/serve/1?format=webp", "", 200),
        ("/serve/1", "*", 304),
        ("/serve/1?explain=1", "", 200),
        ("/api/images/1?size=nope", "", 400),
        ("/serve/99", "", 404),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_plain_request_is_answered_as_one_that_goes_through_every_layer(
    shown: Gateway, path: str, if_none_match: str, status: int, scheme: str
) -> None:
    route = path.split("1", maxsplit=1)[0].split("9", maxsplit=1)[0] + "{media_id}"
    labels = re.escape(f'{{method="GET",route="{route}",status="{status}"}} ')

    def counted() -> float:
        found = re.search(
            f"imgpipe_http_requests_total{labels}([0-9.]+)", requests.get(f"{shown.url}/metrics", timeout=10).text
        )
        return float(found[1]) if found else 0.0

    before = counted()
    asked = {"Accept": "image/webp", "If-None-Match": if_none_match, "X-Forwarded-Proto": scheme}
    plain = shown.get(path, **asked)
    assert plain.status_code == status
    assert plain.headers["x-content-type-options"] == "nosniff"
    assert ("strict-transport-security" in plain.headers) == (scheme == "https")
    for further, body in (({"Authorization": "Bearer of-somebody"}, b""), ({"traceparent": TRACE}, b""), ({}, b"{}")):
        answer = shown.session.get(shown.url + path, headers={**asked, **further}, data=body, timeout=10)
        assert (answer.status_code, answer.content) == (plain.status_code, plain.content)
        own = {"date", "traceparent", "connection"}  # who leaves a body unread closes the connection
        told = {name: value for name, value in answer.headers.items() if name not in own}
        assert told == {name: value for name, value in plain.headers.items() if name not in own}
    assert counted() == before + 4


def test_a_client_that_has_it_gets_304_with_the_same_headers(shown: Gateway) -> None:
    first = shown.get("/serve/1", Accept="image/webp")
    etag = first.headers["etag"]
    assert etag.startswith('"')
    for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = shown.get("/serve/1", **{"Accept": "image/webp", "If-None-Match": given})
        assert (again.status_code, again.content) == (304, b"")
        for name in ("etag", "vary", "cache-control"):
            assert again.headers[name] == first.headers[name]
    assert shown.get("/serve/1", **{"Accept": "image/avif", "If-None-Match": etag}).status_code == 200


def test_head_says_what_get_would(shown: Gateway) -> None:
    for accept in ("image/avif", "image/webp", "*/*"):
        get = shown.get("/serve/1", Accept=accept)
        head = shown.session.head(f"{shown.url}/serve/1", headers={"Accept": accept}, timeout=10)
        assert head.content == b""
        for name in ("content-length", "content-type", "etag", "vary", "cache-control"):
            assert head.headers[name] == get.headers[name]


def test_pages_of_any_origin_may_read_an_image_and_what_is_said_instead(shown: Gateway) -> None:
    etag = shown.get("/serve/1").headers["etag"]
    asked: list[tuple[str, dict[str, str], int]] = [
        ("/serve/1", {}, 200),
        ("/api/images/1?size=grid&format=webp", {}, 200),
        ("/serve/1", {"Range": "bytes=0-9"}, 206),
        ("/serve/1", {"If-None-Match": etag}, 304),
        ("/serve/1", {"Range": "bytes=99999999-"}, 416),
        ("/serve/1?explain=1", {}, 200),
        ("/serve/1?size=nope", {}, 400),
        ("/serve/1?explain=2", {}, 400),
        ("/serve/99", {}, 404),
        ("/serve/of-another-worker-1", {}, 404),
        ("/picture/1", {}, 200),
        ("/picture/1?size=nope", {}, 400),
        ("/picture/99", {}, 404),
        ("/picture/0", {}, 422),
    ]
    for path, headers, status in asked:
        answer = shown.get(path, Origin="https://shop.example", **headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, "*"), path
        assert "origin" not in answer.headers.get("vary", "").lower(), "one copy of it in a cache is for all"
        assert "access-control-allow-credentials" not in answer.headers


def test_ranges(shown: Gateway) -> None:
    whole = shown.get("/serve/1").content
    part = shown.get("/serve/1", Range="bytes=10-19")
    assert (part.status_code, part.content) == (206, whole[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert shown.get("/serve/1", Range="bytes=-5").content == whole[-5:]
    assert shown.get("/serve/1", Range="bytes=100-").content == whole[100:]
    beyond = shown.get("/serve/1", Range=f"bytes={len(whole)}-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole)}")
    for last in (99_999_999, 2**63 - 1, 2**64 - 1):
        assert shown.get("/serve/1", Range=f"bytes=10-{last}").content == whole[10:]
    assert shown.get("/serve/1", Range="bytes=-99999999").content == whole
    for ignored in ("bytes=5-2", "lines=1-2", "bytes=1-2,5-6", "bytes=x", f"bytes=10-{'9' * 5000}"):
        assert shown.get("/serve/1", Range=ignored).status_code == 200
    assert shown.get("/serve/1", **{"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200


@pytest.mark.parametrize("query", ["size=huge", "size=", "format=tiff", "bg=blue", "size=detail&size=huge"])
def test_an_unknown_option_is_400_with_its_name(shown: Gateway, query: str) -> None:
    answer = shown.get(f"/serve/1?{query}")
    assert answer.status_code == 400
    assert answer.json()["field"] == query.split("=", maxsplit=1)[0]


def test_a_logo_without_its_background_is_transparent_and_falls_back_to_png(shown: Gateway) -> None:
    answer = shown.get("/serve/2?size=small&bg=removed", Accept="*/*")
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.convert("RGBA").getpixel((0, 0))[3] == 0
    with Image.open(io.BytesIO(shown.get("/serve/2?size=small&bg=original").content)) as image:
        assert image.mode == "RGB"
    assert shown.get("/serve/1?bg=removed").status_code == 404


def test_a_hot_image_needs_neither_database_nor_object_store(alone: Gateway, s3: S3Access) -> None:
    hot = alone.get("/serve/1?size=grid").content
    stop(s3.server)
    try:
        assert alone.get("/serve/1?size=grid").content == hot
        assert alone.get("/serve/1?size=zoom").status_code == 503
    finally:
        s3.server.start()
        s3.server.wait_until_ready()
    assert alone.get("/serve/1?size=zoom").status_code == 200


def test_a_variant_that_is_lost_or_damaged_in_the_store_is_stood_in_for_until_it_is_made_again(
    alone: Gateway, make_gateway: Callable[..., Gateway]
) -> None:
    path, bucket = "/serve/1?size=thumbnail&format=jpeg", alone.services.media_bucket
    whole, small = alone.get(path), alone.get("/serve/1?size=small&format=jpeg").content
    keys = dict(alone.rows("select format, object_key from media_variants where media_id = 1 and size = 'thumbnail'"))
    bucket.put(keys["jpeg"], whole.content[:-100], content_type="image/jpeg")
    cold = make_gateway()  # that has nothing in memory
    other = cold.get(path)
    assert (other.status_code, other.content, other.headers["cache-control"]) == (200, small, "no-store")
    assert "etag" not in other.headers
    assert cold.get(path, **{"If-None-Match": whole.headers["etag"]}).status_code == 304, "who has it has the right one"
    assert "imgpipe_serve_lost_variants_total 1.0" in cold.get("/metrics").text
    for key in keys.values():
        bucket.delete(key)
    assert make_gateway().get("/serve/1?size=thumbnail", Accept="image/avif,image/webp").status_code == 200
    (found,) = collect_garbage(alone.services, ["media"], act=True, grace_hours=24)
    assert (sorted(found.missing_keys), found.repaired) == (sorted(keys.values()), 1)
    assert len(make_variants(alone.services, "run-2", today()).outcome.done) == 1
    assert cold.get(path).content == whole.content
    lost = alone.rows("select object_key from media_variants where media_id = 1 and size in ('detail', 'header')")
    for (key,) in lost:
        bucket.delete(key)
    cold = make_gateway()
    for size, instead in (("detail", "small"), ("header", "detail")):
        answer = cold.get(f"/serve/1?size={size}&format=jpeg")
        assert (answer.status_code, answer.content) == (200, alone.get(f"/serve/1?size={instead}&format=jpeg").content)
    for (key,) in alone.rows("select object_key from media_variants where media_id = 1"):
        bucket.delete(key)
    nothing = make_gateway().get(path)
    assert (nothing.status_code, nothing.headers["cache-control"]) == (404, "no-store")
    assert "library/" not in nothing.text


def test_a_url_that_names_the_bytes_changes_with_them_and_is_kept_for_no_others(alone: Gateway) -> None:
    kept = "public, max-age=31536000, immutable"

    def version() -> str:
        found = re.search(r"version=([0-9a-f]{12})", alone.get("/picture/1?size=thumbnail").text)
        assert found is not None
        return found[1]

    def served(version: str) -> requests.Response:
        return alone.get(f"/serve/1?size=thumbnail&version={version}")

    first = version()
    old = served(first)
    assert old.headers["Cache-Control"] == kept
    focus = {"box": [0.9, 0.9, 1.0, 1.0]}
    alone.session.put(f"{alone.url}/api/media/focus/1", json=focus, headers=alone.as_worker, timeout=10)
    assert len(make_variants(alone.services, "run", today()).outcome.done) == 1
    second = version()
    assert second != first
    wait_for(lambda: served(second).headers["Cache-Control"] == kept, "the gateway to hear of it")
    late = served(first)
    assert late.headers["Cache-Control"] == "private, no-cache"
    assert late.content != old.content


def test_when_the_news_stop_nothing_old_is_served(alone: Gateway) -> None:
    etag = alone.get("/serve/1?size=detail&format=jpeg").headers["etag"]
    alone.rows("""
        select pg_terminate_backend(pid) from pg_stat_activity
        where query ~* '^(listen|notify) ' and pid <> pg_backend_pid() and datname = current_database()
    """)
    alone.rows("alter table media_variants disable trigger all")
    alone.rows("update media_variants set sha256 = 'f00d' || sha256 where media_id = 1")
    wait_for(lambda: alone.get("/serve/1?size=detail&format=jpeg").headers["etag"] != etag, "the change", 30)
