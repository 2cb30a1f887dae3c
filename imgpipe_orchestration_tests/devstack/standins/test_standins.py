"""The stand-ins as servers: honest labels, repeatable answers, and nothing that breaks them."""

import base64
import io
from typing import Any

import pytest
import requests
from PIL import Image

from imgpipe_orchestration_tests.conftest import StandInAccess

KEY = {"Authorization": "Bearer any"}


def post(url: str, body: Any) -> requests.Response:
    return requests.post(url, json=body, headers=KEY, timeout=10)


def picture(reply: requests.Response) -> bytes:
    return base64.b64decode(reply.json()["data"][0]["b64_json"])


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
    asked = {"model": "gpt-image-2", "prompt": "Anna with red hair", "size": "512x512"}
    base = picture(post(f"{standins.openai_url}/images/generations", asked))
    files = {field: ("base.png", base, "image/png")}
    form = {**asked, "prompt": "a 2x2 grid"}
    edited = requests.post(f"{standins.openai_url}/images/edits", data=form, files=files, headers=KEY, timeout=10)
    one, cells = (Image.open(io.BytesIO(data)).convert("RGB") for data in (base, picture(edited)))
    assert cells.getpixel((128, 140)) == one.getpixel((256, 280)), "the skin"
    assert cells.getpixel((128, 58)) == one.getpixel((256, 110)), "the hair"


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
