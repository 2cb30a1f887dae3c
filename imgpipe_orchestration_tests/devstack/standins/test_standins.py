"""The stand-ins as servers: honest labels, repeatable answers, faults when asked for and only then."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.services import StandIns
from imgpipe_orchestration_tests.conftest import StandInAccess

KEY = {"Authorization": "Bearer any"}


def post(url: str, body: Any, **headers: str) -> requests.Response:
    return requests.post(url, json=body, headers={**KEY, **headers}, timeout=10)


def generate(at: StandInAccess, prompt: str, size: str = "256x256") -> Image.Image:
    reply = post(f"{at.openai_url}/images/generations", {"model": "gpt-image-2", "prompt": prompt, "size": size})
    return Image.open(io.BytesIO(base64.b64decode(reply.json()["data"][0]["b64_json"])))


def edit(at: StandInAccess, image: bytes, prompt: str, size: str = "512x512", field: str = "image") -> Image.Image:
    reply = requests.post(
        f"{at.openai_url}/images/edits",
        data={"model": "gpt-image-2", "prompt": prompt, "size": size},
        files={field: ("base.png", image, "image/png")},
        headers=KEY,
        timeout=10,
    )
    return Image.open(io.BytesIO(base64.b64decode(reply.json()["data"][0]["b64_json"])))


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, form)
    return buffer.getvalue()


# --- honesty -------------------------------------------------------------------------------------------------------


def test_everything_says_that_it_is_made_up(standins: StandInAccess) -> None:
    answers = [
        post(f"{standins.openai_url}/responses", {"model": "m", "input": "hello"}),
        post(f"{standins.openai_url}/embeddings", {"model": "m", "input": "hello"}),
        post(f"{standins.openai_url}/images/generations", {"model": "m", "prompt": "x", "size": "64x64"}),
        post(f"{standins.google_url}/v1/images:annotate?key=k", {"requests": []}),
        post(f"{standins.flowise_url}/api/v1/prediction/persona-data", {"question": "{}"}),
        requests.get(standins.analyses_url, headers=KEY, timeout=10),
    ]
    assert [(answer.status_code, answer.json()["standin"]) for answer in answers] == [(200, True)] * 6
    assert all(answer.json()["model"].endswith("-standin") for answer in answers[:3])


@pytest.mark.parametrize("field", ["image", "image[]"])
def test_an_edit_shows_the_same_person(standins: StandInAccess, field: str) -> None:
    base = generate(standins, "Anna with red hair", "512x512")
    skin, hair = base.convert("RGB").getpixel((256, 280)), base.convert("RGB").getpixel((256, 110))
    drawn = io.BytesIO()
    notes = PngInfo()
    notes.add_text("imgpipe-standin", base.info["imgpipe-standin"])
    base.save(drawn, "PNG", pnginfo=notes)
    cells = edit(standins, drawn.getvalue(), "a 2x2 grid", field=field).convert("RGB")
    assert cells.getpixel((128, 140)) == skin
    assert cells.getpixel((128, 58)) == hair


# --- the vision analysis API ---------------------------------------------------------------------------------------


def test_analyses_are_listed_by_page_until_they_are_processed(standins: StandInAccess) -> None:
    seeded = standins.admin("POST", "vision-analyses", [{"images": 1}] * 5)
    query = {"is_processed": "false", "page_size": "2"}
    found = []
    for page in ("1", "2", "3", "4"):
        data = requests.get(standins.analyses_url, {**query, "page": page}, headers=KEY, timeout=10).json()["data"]
        assert data["total"] == 5
        found += [analysis["vision_analysis_id"] for analysis in data["vision_analysis"]]
    assert found == [analysis["vision_analysis_id"] for analysis in seeded]

    target = seeded[0]
    reply = requests.post(
        f"{standins.analyses_url}/upload",
        data={"vision_analysis_id": target["vision_analysis_id"], "organization_id": target["organization_id"]},
        files={"file": ("report_1.html", b"<html>fine</html>", "text/html")},
        headers=KEY,
        timeout=10,
    )
    assert reply.status_code == 200
    left = requests.get(standins.analyses_url, query, headers=KEY, timeout=10).json()["data"]
    assert left["total"] == 4
    (report,) = standins.admin("GET", "reports")
    assert (report["filename"], report["html"]) == ("report_1.html", "<html>fine</html>")


def test_what_was_listed_is_still_there_after_a_restart(tmp_path: Path) -> None:
    with StandIns(tmp_path / "partners", free_port()) as server:
        standins = StandInAccess(server.url)
        (seeded,) = standins.admin("POST", "vision-analyses", {"images": 1, "organization_id": "one"})
        standins.admin("POST", "vision-analyses", {"images": 1, "organization_id": "two"})
        form = {"vision_analysis_id": seeded["vision_analysis_id"], "organization_id": "one"}
        report = {"file": ("r.html", b"<html>", "text/html")}
        requests.post(f"{standins.analyses_url}/upload", data=form, files=report, headers=KEY, timeout=10)
        image = requests.get(seeded["documents"][0]["document_path"], timeout=10).content
    with StandIns(tmp_path / "partners", free_port()) as server:
        standins = StandInAccess(server.url)
        listed = requests.get(standins.analyses_url, headers=KEY, timeout=10).json()["data"]["vision_analysis"]
        assert [(a["organization_id"], a["is_processed"]) for a in listed] == [("one", True), ("two", False)]
        path = urlsplit(seeded["documents"][0]["document_path"]).path
        assert requests.get(server.url + path, timeout=10).content == image != b""


def test_a_report_for_another_organization_is_refused(standins: StandInAccess) -> None:
    (analysis,) = standins.admin("POST", "vision-analyses", {"organization_id": "one"})
    fields = {"vision_analysis_id": analysis["vision_analysis_id"], "organization_id": "two"}
    files = {"file": ("r.html", b"x")}
    reply = requests.post(f"{standins.analyses_url}/upload", data=fields, files=files, headers=KEY, timeout=10)
    assert reply.status_code == 404


# --- faults of tests -----------------------------------------------------------------------------------------------


def ask(at: StandInAccess, text: str = "hello") -> requests.Response:
    return post(f"{at.openai_url}/embeddings", {"model": "m", "input": text, "dimensions": 4})


def test_a_fault_hits_as_often_as_asked_and_only_what_it_matches(standins: StandInAccess) -> None:
    standins.fault("openai", "server_error", count=2, match="unlucky", after=1, status=503)
    statuses = [ask(standins, text).status_code for text in ("lucky", *["unlucky"] * 4, "lucky")]
    assert statuses == [200, 200, 503, 503, 200, 200]
    (fault,) = standins.admin("GET", "faults")
    assert fault["hits"] == 2


def test_without_a_credential_nothing_is_answered(standins: StandInAccess) -> None:
    url = standins.openai_url
    assert requests.post(f"{url}/embeddings", json={"model": "m", "input": "x"}, timeout=10).status_code == 401
    assert requests.post(f"{standins.google_url}/v1/images:annotate", json={}, timeout=10).status_code == 403


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"requests": 5}', b'{"question": 5}', b"\xff\xfe"])
def test_nonsense_is_refused_and_nothing_breaks(standins: StandInAccess, body: bytes) -> None:
    paths = (
        f"{standins.openai_url}/responses",
        f"{standins.openai_url}/images/edits",
        f"{standins.google_url}/v1/images:annotate?key=k",
        f"{standins.flowise_url}/api/v1/prediction/persona-data",
    )
    statuses = [requests.post(path, body, headers=KEY, timeout=10).status_code for path in paths]
    assert all(status < 500 for status in statuses), statuses
