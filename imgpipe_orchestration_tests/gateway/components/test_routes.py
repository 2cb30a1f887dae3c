"""What browsers may read of an image."""

from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.gateway.components.routes import PUBLIC_FIELDS
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.media.conftest import Gateway, picture


def test_a_browser_reads_the_public_fields_of_an_analysis(seeing_gateway: Gateway) -> None:
    gateway = seeing_gateway
    gateway.finish(1, profile_image=picture(seed=5), logo_image=picture(seed=6))
    info = gateway.get("/api/images/1/info", Origin="https://shop.example")
    assert info.headers["Access-Control-Allow-Origin"] == "*"
    known = info.json()
    assert known["status"] == "completed"
    assert known["alt"]
    assert known["sizes"]["thumbnail"] == {"width": 240, "height": 240, "formats": ["avif", "jpeg", "webp"]}
    shown = gateway.get(f"/serve/1?version={known['version']}")
    assert shown.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert known["placeholder"].startswith("data:image/webp;base64,")
    assert len(known["placeholder"]) < 800
    assert "user_id" not in info.text

    public = gateway.get("/api/images/1/analysis").json()
    assert public["complete"] is True
    assert set(public["analysis"]) <= set(PUBLIC_FIELDS)
    assert "detected_objects" not in public["analysis"]


def test_what_the_operator_has_to_mend_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    answer = Client(create_app(Settings())).get("/api/images/1/info", headers={"Origin": "https://shop.example"})
    assert (answer.status_code, "log" in answer.json()["detail"]) == (503, True)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "DATABASE_URL is not set" in caplog.text


def test_components_are_modules_for_every_origin(gateway: Gateway) -> None:
    answer = gateway.get("/components/smart-image.js")
    assert answer.headers["Content-Type"].partition(";")[0].endswith("/javascript")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def signed(gateway: Gateway, **wish: object) -> str:
    """The signature of a URL of image 1, which is private then."""
    api, worker = f"{gateway.url}/api/media/1", gateway.as_worker
    gateway.session.put(f"{api}/privacy", json={"private": True}, headers=worker, timeout=30).raise_for_status()
    answer = gateway.session.post(f"{api}/signed-url", json=wish, headers=worker, timeout=30)
    return parse_qs(urlsplit(answer.json()["url"]).query)["signature"][0]


FIXED = (("size", "thumbnail"), ("size", "detail"), ("format", "webp"), ("bg", "original"))


def test_a_signature_for_a_part_of_a_private_image_opens_no_more_than_that(gateway: Gateway) -> None:
    gateway.finish(1, profile_image=picture(800, 600))
    whole = signed(gateway)
    assert gateway.get(f"/api/images/1/analysis?signature={whole}").status_code == 200
    every = gateway.get(f"/api/images/1/info?signature={whole}").json()["sizes"]
    for name, value in FIXED:
        fixed = {name: value}
        part = signed(gateway, **fixed)
        refused = gateway.get(f"/api/images/1/analysis?signature={part}")
        assert (refused.status_code, refused.json()["code"]) == (403, "link-invalid")
        assert f"{name}={value}" in refused.json()["detail"]
        told = gateway.get(f"/api/images/1/info?signature={part}").json()
        for size, info in told["sizes"].items():
            assert size == fixed.get("size", size)
            assert set(info["formats"]) <= {fixed.get("format", one) for one in info["formats"]}
        assert {size for size in every if size == fixed.get("size", size)} == told["sizes"].keys()
        other = {"size": "small", "format": "jpeg", "bg": "removed"}[name]
        assert gateway.get(f"/api/images/1?{urlencode({name: other, 'signature': part})}").status_code == 403
        if name != "bg":
            assert gateway.get(f"/picture/1?{urlencode({**fixed, 'signature': part})}").status_code == 403
