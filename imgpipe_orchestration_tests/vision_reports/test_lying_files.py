"""Documents that are not what the list calls them, and file servers that do not hand them over."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.partners.fetch import Fetcher, FetchLimits
from imgpipe_orchestration.partners.ssrf import AllowList
from imgpipe_orchestration.vision_reports import steps
from imgpipe_orchestration.vision_reports.inputs import gather
from imgpipe_orchestration.vision_reports.model import Document, ImageFile
from imgpipe_orchestration_tests.partners.wire import reply, serving
from imgpipe_orchestration_tests.vision_reports.conftest import Desk


def test_what_is_no_image_is_listed_with_its_reason_and_the_others_are_analysed(desk: Desk) -> None:
    hosts = desk.settings.allowed_private_hosts
    desk.seed(
        images=2,
        descriptions=False,
        document_urls=[f"http://{hosts}/health", "http://127.0.0.1:9/secret.jpg", "ftp://example.com/a.jpg"],
    )
    execution = desk.execute()
    assert execution["status"] == "success"
    assert (execution["analyses"][0]["images_total"], execution["analyses"][0]["images_usable"]) == (5, 2)
    (order,) = desk.backend.orders.values()
    reasons = " ".join(missing["reason"] for missing in order["missing"])
    assert "127.0.0.1 is a private or reserved address" in reasons
    assert "Only http and https links are fetched" in reasons


def test_an_analysis_without_a_usable_image_fails_with_the_reason_and_uploads_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "IMAGE_BYTES", 1_000_000)
    lies: list[tuple[str, dict[str, Any], str]] = [
        ("html_file", {}, "not an image but a web page"),
        ("huge_file", {"size": 200 * 1024 * 1024}, "more than the 1,000,000 allowed"),
        ("redirect", {"location": "http://127.0.0.1:9/latest/meta-data"}, "private or reserved address"),
        ("redirect", {"location": "file:///etc/passwd"}, "we do not fetch"),
        ("not_found", {}, "HTTP 404"),
    ]
    desk.seed(images=1, descriptions=False)
    job = desk.job()
    for kind, options, reason in lies:
        desk.standins.admin("DELETE", "faults")
        desk.standins.fault("files", kind, count=None, **options)
        execution = desk.execute(job)
        assert (execution["status"], execution["failed"]) == ("failed", 1), kind
        assert reason in execution["analyses"][0]["error"]
    assert desk.reports == []


def test_what_cannot_be_had_at_this_moment_is_tried_again_before_a_report_goes_out_without_it(desk: Desk) -> None:
    seeded = desk.seed(images=2)
    image, descriptions = (seeded["documents"][n]["document_name"] for n in (1, 2))
    for name in (image, descriptions):
        desk.standins.fault("files", "rate_limit", match=name, retry_after=600, count=1)
    execution = desk.execute()
    assert (execution["status"], execution["analyses"][0]["images_usable"]) == ("success", 2)
    (order,) = desk.backend.orders.values()
    assert (order["missing"], order["notes"]) == ([], [])
    assert all(image["description"] for image in order["images"])


def test_a_report_goes_out_without_an_image_whose_server_stays_away(desk: Desk) -> None:
    seeded = desk.seed(images=2, descriptions=False)
    gone = seeded["documents"][1]["document_name"]
    desk.standins.fault("files", "rate_limit", match=gone, retry_after=600, count=None)
    execution = desk.execute()
    assert (execution["status"], execution["analyses"][0]["images_usable"]) == ("success", 1)
    (order,) = desk.backend.orders.values()
    assert [missing["name"] for missing in order["missing"]] == [gone]


def test_an_image_needs_no_room_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))  # nothing can be written there
    handed: list[ImageFile] = []
    with serving(lambda handler, _: reply(handler, photos.jpeg("coffee"))) as server:
        gather(
            [Document("hull.jpg", f"{server.url}/hull.jpg", "image")],
            fetcher=Fetcher(AllowList.parse(f"127.0.0.1:{server.port}")),
            limits=FetchLimits(),
            max_images=1,
            patient=False,
            hand_over=lambda picture: handed.append(picture) or "1",
        )
    assert [(picture.name, picture.mime) for picture in handed] == [("hull.jpg", "image/jpeg")]


def test_descriptions_that_are_not_json_are_noted_and_not_fatal(desk: Desk) -> None:
    desk.seed(images=1)
    desk.standins.fault("files", "html_file", match="descriptions", count=1)
    execution = desk.execute()
    assert execution["status"] == "success"
    (order,) = desk.backend.orders.values()
    assert "could not be used: it is not JSON" in order["notes"][0]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"descriptions": {"hull.jpg": "Port side"}}, "no image has a text in it"),
        ([{"hull.jpg": "Port side"}], "it is not a JSON object"),
        ({"hull.jpg": None}, None),
        ({}, None),
    ],
)
def test_descriptions_in_another_shape_are_noted(written: Any, told: str | None) -> None:
    with serving(lambda handler, _: reply(handler, json.dumps(written).encode())) as server:
        gathered = gather(
            [Document("texts.json", f"{server.url}/texts.json", "json")],
            fetcher=Fetcher(AllowList.parse(f"127.0.0.1:{server.port}")),
            limits=FetchLimits(),
            max_images=1,
            patient=False,
            hand_over=lambda _: "1",
        )
    expected = [f"The descriptions in texts.json could not be used: {told}"] if told else []
    assert [note[: len(expected[0])] for note in gathered.notes] == expected


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_descriptions_are_read_in_every_charset_that_json_comes_in(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, charset: str
) -> None:
    seeded = desk.seed(images=1)
    image, descriptions = seeded["documents"]
    written = json.dumps({image["document_name"]: "Rost am Rumpf – größer"}, ensure_ascii=False).encode(charset)
    with serving(lambda handler, _: reply(handler, written)) as server:
        monkeypatch.setenv("ALLOWED_PRIVATE_HOSTS", "127.0.0.0/8")
        descriptions["document_path"] = f"{server.url}/descriptions.json"
        desk.execute_over({**seeded, "documents": [image, descriptions]})
    (order,) = desk.backend.orders.values()
    assert [one["description"] for one in order["images"]] == ["Rost am Rumpf – größer"]
    assert order["notes"] == []


def test_documents_of_one_name_share_its_description_and_no_other_name(desk: Desk) -> None:
    seeded = desk.seed(images=3)
    first, second, third, descriptions = seeded["documents"]
    name = first["document_name"]
    second["document_name"], third["document_name"] = name, f"{name} (2)"
    desk.execute_over({**seeded, "documents": [first, second, third, 5, descriptions]})
    (order,) = desk.backend.orders.values()
    described = "Section 1: look for rust"
    assert [image["description"] for image in order["images"]] == [described, described, ""]
    assert order["missing"] == [{"name": "document", "reason": "the list gives no usable address for it"}]
    uploads = [body for path, _, body in desk.backend.server.requests if path.endswith("/images")]
    for body, unique in zip(uploads, (name, f"{name} (3)", f"{name} (2)"), strict=True):
        assert f'filename="{unique}"'.encode() in body


def test_a_file_that_is_listed_more_than_once_is_looked_at_once(desk: Desk) -> None:
    seeded = desk.seed(images=2, descriptions=False)
    first, second = seeded["documents"]
    again = {**first, "document_id": "another"}
    renamed = {**first, "document_name": "the_same_file_as_another.jpg"}
    desk.execute_over({**seeded, "documents": [first, second, again, renamed, 5, 6]})
    (order,) = desk.backend.orders.values()
    assert len(order["images"]) == 3
    assert [missing["name"] for missing in order["missing"]] == ["document", "document (2)"]


def test_a_link_with_spaces_in_it_is_followed(desk: Desk) -> None:
    seeded = desk.seed(images=1, run_code="TWO WORDS", descriptions=False)
    (document,) = seeded["documents"]
    assert "%20" in document["document_path"]
    document["document_path"] = f" {document['document_path'].replace('%20', ' ')} "
    execution, _ = desk.execute_over(seeded)
    assert (execution["status"], execution["analyses"][0]["images_usable"]) == ("success", 1)
