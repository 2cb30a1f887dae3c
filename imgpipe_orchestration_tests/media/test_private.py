"""Private images: what is closed without a signature, what a signature opens, and for how long."""

import time
from typing import Any

import jwt
import pytest
import requests
from sqlalchemy import Engine, text

from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.serving import signing
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

OWNER, OTHER = 1, 2


@pytest.fixture
def hidden(gateway: Gateway) -> Gateway:
    """A gateway with a finished public image (media 1) and a private one of the same bytes (media 2), both OWNER's."""
    gateway.finish(OWNER, product_image=picture(480, 360), profile_image=picture(480, 360))
    for path in ("/serve/2", "/api/images/2?size=grid"):
        assert gateway.get(path).status_code == 200, "hot before it becomes private"
    assert told(gateway, OWNER, "PUT", "2/privacy", {"private": True}) == (200, "")
    return gateway


def told(gateway: Gateway, user: int, method: str, path: str, body: Any = None) -> tuple[int, str]:
    """Status and problem code of a request to /api/media/... as a user."""
    answer = gateway.session.request(
        method, f"{gateway.url}/api/media/{path}", json=body, headers=gateway.as_user(user), timeout=30
    )
    return answer.status_code, answer.json().get("code", "")


def signed(gateway: Gateway, **wish: Any) -> str:
    """A signed URL's path and query, asked for by the owner."""
    url = f"{gateway.url}/api/media/2/signed-url"
    answer = gateway.session.post(url, json=wish, headers=gateway.as_user(OWNER), timeout=30)
    assert answer.status_code == 200, answer.text
    whole: str = answer.json()["url"]
    return whole.removeprefix(gateway.url)


def refused(gateway: Gateway, path: str, **headers: str) -> str:
    """The code of a 403 that no cache may keep."""
    answer = gateway.get(path, **headers)
    assert (answer.status_code, answer.headers["cache-control"]) == (403, "no-store"), f"{path} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    code: str = answer.json()["code"]
    return code


def test_nothing_of_a_private_image_is_shown_without_a_signature(hidden: Gateway) -> None:
    for path in ("serve/2", "api/images/2", "picture/2", "api/images/2/info", "api/images/2/analysis"):
        assert refused(hidden, f"/{path}") == "private-image"
    etag = hidden.get(signed(hidden)).headers["etag"]
    for condition in ({"If-None-Match": etag}, {"If-None-Match": "*"}, {"Range": "bytes=0-9"}):
        assert refused(hidden, "/serve/2", **condition) == "private-image"
    assert refused(hidden, "/serve/2?explain=1&format=webp") == "private-image"
    assert hidden.get("/serve/1").status_code == 200


def test_a_private_image_without_variants_is_closed_too(hidden: Gateway) -> None:
    hidden.rows("delete from media_variants where media_id = 2 returning 1")
    wait_for(lambda: refused(hidden, "/serve/2") == "private-image", "the refusal", 30)
    original = lambda: hidden.get(signed(hidden)).headers["cache-control"] == "no-store"  # noqa: E731
    wait_for(original, "the original, as long as nothing else is there", 30)
    hidden.rows("update media_files set status = 'failed', error = 'no picture' where id = 2 returning 1")
    wait_for(lambda: hidden.get(signed(hidden)).status_code == 404, "why there is none", 30)
    assert "no picture" in hidden.get(signed(hidden)).json()["detail"]


def private_seconds(answer: requests.Response) -> int:
    """How long a browser, and nobody else, may keep an answer."""
    whose, _, seconds = answer.headers["cache-control"].partition(", max-age=")
    assert whose == "private"
    return int(seconds)


def test_a_signature_opens_every_size_and_no_shared_cache_keeps_the_answer(hidden: Gateway) -> None:
    url = signed(hidden)
    for appended in ("", "?size=thumbnail", "&size=zoom&format=jpeg"):
        answer = hidden.get(url + appended)
        assert answer.status_code == 200
        assert 3500 < private_seconds(answer) <= 3600
    assert private_seconds(hidden.get(signed(hidden, seconds=60))) <= 60, "no longer than the signature opens it"
    signature = url.rpartition("=")[2]
    assert hidden.get(f"/serve/2?signature={signature}").headers["cache-control"].startswith("private, ")
    again = hidden.get(url, **{"If-None-Match": hidden.get(url).headers["etag"]})
    assert (again.status_code, again.headers["cache-control"][:7]) == (304, "private")
    element = hidden.get(f"/picture/2?signature={signature}")
    assert element.headers["cache-control"] == "no-store"
    assert element.text.count(f"signature={signature}") >= 4
    assert len(hidden.get(f"/api/images/2/info?signature={signature}").json()["sizes"]) > 1


def test_a_signature_is_bound_to_what_it_was_made_for(hidden: Gateway) -> None:
    thumbnail = signed(hidden, size="thumbnail", seconds=60)
    assert hidden.get(thumbnail).status_code == 200
    assert refused(hidden, thumbnail + "&size=zoom") == "link-invalid"
    for wish in ({"size": "thumbnail"}, {"format": "webp"}):
        element = signed(hidden, **wish).replace("/api/images/", "/picture/")
        assert refused(hidden, element) == "link-invalid", "it names other sizes and formats"
    assert hidden.get(signed(hidden, bg="original").replace("/api/images/", "/picture/")).status_code == 200
    assert told(hidden, OWNER, "PUT", "1/privacy", {"private": True})[0] == 200
    assert refused(hidden, thumbnail.replace("/2?", "/1?")) == "link-invalid"


def test_an_expired_signature_says_so_and_a_forged_one_opens_nothing(hidden: Gateway) -> None:
    good = signed(hidden)
    secret = hidden.settings.secret_key
    late = signing.sign(hidden.settings, 2, seconds=-1, fixed={})[0]
    assert refused(hidden, f"/serve/2?signature={late}") == "link-expired"
    claims = {"aud": "2", "exp": time.time() + 60}
    name = jwt.get_unverified_header(late)["kid"]
    forged = [
        good[:-2] + ("aa" if not good.endswith("aa") else "bb"),
        jwt.encode(claims, secret, "HS256", headers={"kid": name}),
        jwt.encode(claims, "", "none", headers={"kid": name}),
        jwt.encode(claims, secret, "HS256"),
        hidden.as_user(OWNER)["Authorization"][7:],
        "x",
        "%00",
    ]
    for one in forged:
        assert refused(hidden, f"/serve/2?signature={one.rpartition('=')[2]}") == "link-invalid"


def test_keys_of_signatures_rotate() -> None:
    first, both, second = (Settings(signed_url_keys=keys) for keys in ("first", "second,first", "second"))
    old, new = (signing.sign(settings, 2, seconds=60, fixed={})[0] for settings in (first, both))
    assert min(signing.check(both, 2, old, {}), signing.check(second, 2, new, {})) > 50
    with pytest.raises(signing.LinkInvalid):
        signing.check(second, 2, old, {})


def test_only_the_owner_and_media_workers_decide(hidden: Gateway) -> None:
    assert told(hidden, OTHER, "PUT", "2/privacy", {"private": False}) == (404, "not-found")
    assert told(hidden, OTHER, "POST", "2/signed-url", {}) == (404, "not-found")
    assert hidden.session.post(f"{hidden.url}/api/media/2/signed-url", timeout=30).status_code == 401
    by_worker = hidden.session.post(f"{hidden.url}/api/media/2/signed-url", headers=hidden.as_worker, timeout=30)
    assert hidden.session.get(by_worker.json()["url"], timeout=30).status_code == 200
    for wrong in ({"seconds": 10**9}, {"second": 60}, {"sizes": "thumbnail"}):
        assert told(hidden, OWNER, "POST", "2/signed-url", wrong)[0] == 422
    assert told(hidden, OWNER, "PUT", "2/privacy", {"private": False}) == (200, "")
    assert hidden.get("/serve/2").headers["cache-control"].startswith("public")


def test_a_decision_holds_for_the_very_next_request(hidden: Gateway) -> None:
    """Also before the database's news of it have come: here they never do."""
    hidden.rows("alter table media_files disable trigger user")
    shown = {True: 403, False: 200}
    for private in (False, True, False):
        assert hidden.get("/serve/2").status_code == shown[not private]
        assert told(hidden, OWNER, "PUT", "2/privacy", {"private": private}) == (200, "")
        assert hidden.get("/serve/2").status_code == shown[private]


def test_the_owner_sees_signed_urls_and_others_find_nothing(hidden: Gateway) -> None:
    path = hidden.me(OWNER)["profile_image_path"]
    assert hidden.session.get(path, timeout=30).status_code == 200
    assert hidden.session.get(f"{path}?size=thumbnail", timeout=30).status_code == 200
    everything = hidden.get("/api/media/search", **hidden.as_worker).json()["images"]
    assert [one["media_id"] for one in everything] == ["1"]
    own = hidden.get(f"/api/media/search?user_id={OWNER}", **hidden.as_worker).json()["images"]
    assert {one["media_id"]: one["private"] for one in own} == {"1": False, "2": True}
    for one in own:
        assert hidden.session.get(one["url"], timeout=30).status_code == 200
    nothing = hidden.get("/api/media/search?similar_to=2", **hidden.as_worker)
    assert nothing.status_code == 404 and "private" in nothing.json()["detail"]
    duplicates = hidden.get("/api/media/duplicates/1", **hidden.as_worker).json()
    assert not any(duplicates[kind] for kind in ("identical_bytes", "identical_pixels", "similar"))


def test_whether_a_temp_file_is_private_is_told_by_indexes(engine: Engine) -> None:
    """Anybody may ask for a temp file: none may cost a look at every image there is."""
    with transaction(engine) as connection:
        connection.execute(text("set local enable_seqscan = off"))  # else a table this small is read whole
        explained = connection.execute(text(f"explain {store.PATH_ACCESS}"), {"path": "/temp_images/products/1.jpg"})
        plan = "\n".join(explained.scalars())
    assert "Seq Scan" not in plan, plan
