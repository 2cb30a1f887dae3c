"""`PATCH /users/me`, temp files and `GET /users/me`, over HTTP."""

import functools
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jwt
import pytest
import requests

from imgpipe_orchestration.errors import BackendUnavailable, BadInput, Unauthenticated
from imgpipe_orchestration.imaging import limits
from imgpipe_orchestration.media.model import FIELDS
from imgpipe_orchestration.media.uploads import Upload, accept
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.web.auth import user_of
from imgpipe_orchestration_tests.conftest import S3Access
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.locks import waiters
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.parts import stop


def stored_keys(gateway: Gateway) -> list[str]:
    return sorted(o.key for o in gateway.services.media_bucket.list())


def test_an_upload_is_a_row_an_object_and_a_temp_url(gateway: Gateway) -> None:
    photo = picture()
    answer = gateway.upload(456, profile_image=photo, texts={"bio": "I paint."})
    assert answer.status_code == 200
    profile = answer.json()
    path = profile["profile_image_path"]
    assert re.fullmatch(r"/temp_images/profiles/456-profile-\d{10}-\d{9}\.jpg", path)
    assert profile["bio"] == "I paint."
    (row,) = gateway.rows("select user_id, image_path, original_name, mime_type, status from pending_images")
    assert tuple(row) == (456, path, "my profile_image.jpg", "image/jpeg", "pending")
    served = gateway.get(path)
    assert served.content == photo
    assert served.headers["content-type"] == "image/jpeg"
    assert served.headers["cache-control"] == "no-store"
    asked = requests.head(gateway.url + path, timeout=30)
    assert (asked.status_code, asked.headers["content-length"], asked.content) == (200, str(len(photo)), b"")


def test_every_field_goes_to_its_folder_and_its_table(gateway: Gateway) -> None:
    fields = ("profile_image", "header_image", "logo_image", "site_image", "product_image", "event_image")
    answer = gateway.upload(7, **{name: picture(seed=n) for n, name in enumerate(fields)})
    profile = answer.json()
    assert profile["profile_image_path"].startswith("/temp_images/profiles/7-profile-")
    assert profile["header_image_path"].startswith("/temp_images/profiles/7-header-")
    assert profile["logo_path"].startswith("/temp_images/profiles/7-logo-")
    assert profile["site_media"][0]["media_path"].startswith("/temp_images/sites/7-site-")
    assert profile["product_media"][0]["media_path"].startswith("/temp_images/products/7-product-")
    assert profile["event_media"][0]["media_path"].startswith("/temp_images/events/7-event-")
    assert len(profile["images"]) == 6
    assert gateway.me(7)["logo_path"] == profile["logo_path"]


def test_an_upload_that_is_accepted_is_told_so_also_when_the_database_goes_away_right_behind_it(
    gateway: Gateway,
) -> None:
    # Whoever reads this table's row, as the answer's profile does and no upload, loses the session.
    fatal = "select * from events where pg_terminate_backend(pg_backend_pid())"
    gateway.rows("insert into event_media (user_id, media_path) values (7, '/temp_images/events/1.jpg')")
    gateway.rows("alter table event_media rename to events")
    gateway.rows(f"create view event_media as {fatal}")
    answer = gateway.upload(7, profile_image=picture(), texts={"bio": "I paint."})
    assert answer.status_code == 200
    (row,) = gateway.rows("select id, image_path from pending_images")
    image = {"id": row.id, "field": "profile_image", "image_path": row.image_path, "status": "pending"}
    assert answer.json() == {"success": True, "id": 7, "bio": "I paint.", "images": [image]}
    asked = gateway.get("/users/me", **gateway.as_user(7))
    assert asked.status_code == 503


def test_the_content_decides_the_type_and_not_name_or_header(gateway: Gateway) -> None:
    files = {"profile_image": ("photo.jpg", picture(format="PNG"), "image/gif")}
    answer = requests.patch(f"{gateway.url}/users/me", files=files, headers=gateway.as_user(1), timeout=30)
    assert answer.json()["profile_image_path"].endswith(".png")
    assert gateway.rows("select mime_type from pending_images")[0][0] == "image/png"


LOGO = b"""<svg xmlns="http://www.w3.org/2000/svg" width="200" height="100">
<script>alert(1)</script><rect width="200" height="100" fill="#0a0"/></svg>"""


def test_an_svg_logo_is_drawn_and_never_served(gateway: Gateway) -> None:
    files = {"logo_image": ("logo.svg", LOGO, "image/svg+xml")}
    answer = requests.patch(f"{gateway.url}/users/me", files=files, headers=gateway.as_user(1), timeout=60)
    (image,) = answer.json()["images"]
    assert image["image_path"].endswith(".png")
    assert gateway.get(image["image_path"]).headers["content-type"] == "image/png"
    gateway.run_due()
    assert ".svg" not in gateway.session.get(f"{gateway.url}/users/me", headers=gateway.as_user(1), timeout=30).text
    for key in stored_keys(gateway):
        assert b"<svg" not in gateway.services.media_bucket.get(key)
    (row,) = gateway.rows("select status, width, height, mime_type from media_files")
    assert tuple(row) == ("completed", 2048, 1024, "image/png")


def test_a_logo_that_cannot_be_drawn_is_refused_with_what_to_do(gateway: Gateway) -> None:
    for evil in (LOGO.replace(b"<svg", b"<!DOCTYPE svg [<!ENTITY a 'b'>]><svg"), LOGO[:-3]):
        answer = gateway.upload(1, logo_image=evil)
        assert answer.status_code == 415
        assert "save it as a plain SVG" in answer.json()["detail"]


@pytest.fixture
def usual_limits() -> Iterator[None]:
    yield
    limits.allow(megapixels=100)  # it is the process's


@pytest.mark.usefixtures("usual_limits")
def test_the_limit_on_pixels_is_a_setting_that_the_refusal_names(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(image_max_megapixels=0.5)
    answer = gateway.upload(1, product_image=picture(1000, 600))
    assert answer.status_code == 413
    assert "0.6 megapixels, the limit is 0.5 (setting IMAGE_MAX_MEGAPIXELS)" in answer.json()["detail"]
    gateway.finish(1, product_image=picture(800, 600))
    assert gateway.rows("select status from media_files")[0][0] == "completed"


def test_what_is_no_usable_image_is_refused_with_its_field_and_nothing_is_kept(gateway: Gateway) -> None:
    for data, status in (
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"<html>not an image</html>", 415),
        (b"", 415),
        (b"\xff\xd8\xff" + b"\0" * 50, 415),
        (b"\x89PNG\r\n\x1a\n" + bytes(5 * 1024 * 1024), 413),
    ):
        answer = gateway.upload(1, profile_image=picture(), header_image=data)
        assert answer.status_code == status, data[:20]
        assert answer.headers["content-type"] == "application/problem+json"
        assert "header_image" in answer.json()["detail"]
    assert stored_keys(gateway) == []
    assert gateway.rows("select 1 from pending_images union all select 1 from user_profiles") == []


def test_a_file_of_exactly_five_megabytes_is_accepted(gateway: Gateway) -> None:
    photo = picture()
    photo += bytes(5 * 1024 * 1024 - len(photo))
    assert gateway.upload(1, profile_image=photo).status_code == 200
    assert gateway.upload(1, profile_image=photo + b"\0").status_code == 413


def test_an_unknown_file_field_is_named(gateway: Gateway) -> None:
    answer = gateway.upload(1, selfie=picture())
    assert answer.status_code == 422
    assert answer.json()["field"] == "selfie"


@pytest.mark.parametrize("subject", ["0", "-1", str(2**63), "9" * 40, "1.5", "me", "", True, 1.5, None, [1]])
def test_a_token_that_names_no_user_is_refused(subject: object) -> None:
    settings, claims = Settings(), json.dumps({"sub": subject, "exp": 4_000_000_000}).encode()
    token = jwt.api_jws.PyJWS().encode(claims, settings.user_jwt_secret, "HS256")
    with pytest.raises(Unauthenticated, match="does not name a user"):
        user_of(token, settings)


def test_what_no_text_can_hold_is_refused_in_texts_and_left_out_of_file_names(gateway: Gateway) -> None:
    refused = gateway.upload(1, profile_image=picture(), texts={"bio": "a\0b"})
    assert refused.status_code == 422
    assert stored_keys(gateway) == []
    files = {"profile_image": ("a\0b.jpg", picture(), "image/jpeg")}
    answer = requests.patch(f"{gateway.url}/users/me", files=files, headers=gateway.as_user(1), timeout=30)
    assert answer.status_code == 200
    assert "\0" not in gateway.rows("select original_name from pending_images")[0][0]


def test_texts_alone_can_be_changed_and_others_stay(gateway: Gateway) -> None:
    gateway.upload(3, texts={"bio": "first", "website": "https://example.org"})
    gateway.upload(3, texts={"bio": "second"})
    profile = gateway.me(3)
    assert (profile["bio"], profile["website"]) == ("second", "https://example.org")


def test_a_logo_goes_to_the_promoter_who_has_no_artist_profile(gateway: Gateway) -> None:
    gateway.rows("insert into promoter_profiles (user_id) values (9)")
    path = gateway.upload(9, logo_image=picture()).json()["logo_path"]
    assert gateway.rows("select logo_path from promoter_profiles where user_id = 9")[0][0] == path
    assert gateway.rows("select 1 from artist_profiles") == []


def test_uploads_of_one_user_go_one_after_the_other(gateway: Gateway) -> None:
    """Each would hold what the other waits for, a profile image and a logo, if their forms have these the other way
    round."""
    assert gateway.upload(9, logo_image=picture(), profile_image=picture()).status_code == 200
    with ThreadPoolExecutor(1) as pool:
        others: list[Future[requests.Response]] = []

        def meanwhile(*_: object) -> None:
            others.append(pool.submit(gateway.upload, 9, profile_image=picture(seed=2)))
            waits = functools.partial(waiters, gateway.services.engine)
            wait_for(lambda: waits() or others[0].done(), "the other upload to reach the profile", 30, every=0.02)
            assert not others[0].done()

        logo = Upload(FIELDS["logo_image"], "logo.jpg", picture(seed=3))
        assert len(accept(gateway.services, 9, [logo], {}, within=meanwhile)) == 1
        assert others[0].result(30).status_code == 200


def test_temp_paths_lead_to_temp_files_only(gateway: Gateway) -> None:
    for path in ("profiles/../secret", "profiles/none.jpg", "..%2f..%2fetc/passwd", "bulk/x"):
        assert gateway.get(f"/temp_images/{path}").status_code == 404, path


def test_with_the_object_store_away_nothing_is_half_accepted(gateway: Gateway, s3: S3Access) -> None:
    stop(s3.server)
    try:
        answer = gateway.upload(1, profile_image=picture(), texts={"bio": "x"})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert gateway.rows("select 1 from pending_images union all select 1 from user_profiles") == []
    finally:
        s3.server.start()
        s3.server.wait_until_ready()
    assert gateway.upload(1, profile_image=picture()).status_code == 200


def test_the_files_of_an_upload_whose_commit_may_have_come_through_stay(gateway: Gateway) -> None:
    def lost(*_: object) -> None:
        raise BackendUnavailable("the connection went with the answer to the commit")

    upload = Upload(FIELDS["profile_image"], "me.jpg", picture())
    with pytest.raises(BackendUnavailable):
        accept(gateway.services, 1, [upload], {}, within=lost)
    assert len(stored_keys(gateway)) == 1


def test_the_files_of_an_upload_that_was_not_accepted_go(gateway: Gateway) -> None:
    upload = Upload(FIELDS["profile_image"], "me.jpg", picture())
    with pytest.raises(BadInput):
        accept(gateway.services, 1, [upload], {"bio": "\0"})
    assert stored_keys(gateway) == []
