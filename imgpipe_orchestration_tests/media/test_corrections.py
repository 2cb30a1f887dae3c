"""What people correct wins over the models, until they give it back."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from imgpipe_orchestration.gateway.pages import correcting
from imgpipe_orchestration.media.evaluation import evaluate
from imgpipe_orchestration.media.steps.callback import payload
from imgpipe_orchestration.media.store import media_file, save_analysis
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.cli.conftest import Run, run
from imgpipe_orchestration_tests.gateway.browser import visitor
from imgpipe_orchestration_tests.gateway.conftest import browser
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

pytestmark = pytest.mark.slow

__all__ = ["browser", "run"]

ALT = "A zeppelin over Friedrichshafen"


def patch(gateway: Gateway, headers: dict[str, str], **fields: object) -> tuple[int, dict[str, object]]:
    answer = gateway.session.patch(f"{gateway.url}/api/media/analysis/1", json=fields, headers=headers, timeout=30)
    return answer.status_code, answer.json()


def test_a_correction_wins_over_the_model_until_it_is_given_back(seeing_gateway: Gateway) -> None:
    gateway = seeing_gateway
    gateway.upload(7, profile_image=picture())
    assert patch(gateway, gateway.as_user(7), alt_text=ALT)[0] == 404, "nothing is known of it yet"
    gateway.run_due()

    def analysis() -> dict[str, object]:
        found: dict[str, object] = gateway.get("/api/media/analysis/1", **gateway.as_worker).json()["analysis"]
        return found

    of_model = analysis()
    assert patch(gateway, gateway.as_user(8), alt_text=ALT)[0] == 404, "it is another's"
    assert patch(gateway, gateway.as_user(7), style="baroque")[0] == 403
    assert patch(gateway, gateway.as_worker, colour="red")[0] == 422
    assert patch(gateway, gateway.as_worker)[0] == 422
    assert patch(gateway, gateway.as_worker, quality_score=101)[0] == 422
    status, answer = patch(gateway, gateway.as_user(7), alt_text=ALT)
    assert (status, answer["analysis"]["alt_text"]) == (200, ALT)  # type: ignore[index]
    assert patch(gateway, gateway.as_worker, mood_keywords=["airy"], style="baroque")[0] == 200
    for wrong in ([{"hex": "red", "share": 1.0}], [{"hex": "#ff0000"}], "red"):
        assert patch(gateway, gateway.as_worker, dominant_colors=wrong)[0] == 422
    for box in ([0.5, 0.25, 0.5, 0.5], [0.0, 0.5, 1.0, 0.25]):
        assert patch(gateway, gateway.as_worker, detected_objects=[{"name": "Sky", "box": box}])[0] == 422
    seen: dict[str, object] = {
        "dominant_colors": [{"hex": "#12ff00", "share": 0.75}],
        "brand_colors": ["#12ff00"],
        "detected_objects": [{"name": "Zeppelin", "score": 0.5, "box": [0.0, 0.25, 1.0, 0.5]}],
        "confidence_score": 0.5,
    }
    assert (
        patch(gateway, gateway.as_worker, **{**seen, "brand_colors": ["#12FF00"]})[0] == 200
    )  # as the document has it

    with transaction(gateway.services.engine) as connection:  # as a backfill does it
        save_analysis(connection, 1, {"alt_text": "what a newer model says", "version": "newer"})
    now = analysis()
    assert (now["alt_text"], now["style"], now["mood_keywords"]) == (ALT, "baroque", ["airy"])
    assert {name: now[name] for name in seen} == seen
    green = gateway.get("/api/media/search?color=12ff00", **gateway.as_worker).json()
    assert [one["media_id"] for one in green["images"]] == ["1"]
    corrected = now["corrected"]
    assert isinstance(corrected, dict) and set(corrected) == {"alt_text", "style", "mood_keywords", *seen}
    assert corrected["alt_text"]["by"] == "user 7"
    assert corrected["style"]["by"].endswith("_API_KEY")
    found = gateway.get("/api/media/search?text=zeppelin", **gateway.as_worker).json()
    assert [(one["media_id"], one["why"].split(",")[0]) for one in found["images"]] == [("1", "words")]
    with transaction(gateway.services.engine) as connection:
        reported = payload(connection, media_file(connection, 1), gateway.url)["ai_analysis"]
    assert reported["alt_text"] == ALT
    assert patch(gateway, gateway.as_worker, **dict.fromkeys(corrected))[0] == 200
    assert analysis() == {**of_model, "alt_text": "what a newer model says"}


def test_corrections_are_exported_as_a_set_that_models_can_meet(
    seeing_gateway: Gateway, run: Run, tmp_path: Path
) -> None:
    gateway, services = seeing_gateway, seeing_gateway.services
    gateway.finish(7, **{f"{name}_image": picture(seed=n) for n, name in enumerate(("profile", "header", "product"))})
    gateway.finish(8, profile_image=picture(seed=3))
    kinds = {kind: row for row, kind in gateway.rows("select id, kind from media_files where user_id = 7")}
    exact: dict[str, object] = {"quality_score": 0, "style": "baroque", "mood_keywords": ["airy"]}
    corrections: dict[int, dict[str, object]] = {
        kinds["profile"]: {**exact, "brand_name": "a product has none", "alt_text": ALT},
        kinds["header"]: {"alt_text": ALT, "subject": "A cat"},
        kinds["product"]: {"brand_colors": ["#12ff00"], "alt_text": "", "style": "", "mood_keywords": []},
        gateway.rows("select id from media_files where user_id = 8")[0][0]: {"style": "baroque"},
    }
    for media_id, fields in corrections.items():
        url = f"{gateway.url}/api/media/analysis/{media_id}"
        gateway.session.patch(url, json=fields, headers=gateway.as_worker, timeout=30).raise_for_status()
    ((lost,),) = gateway.rows("select bulk_path from media_files where user_id = 8")
    services.media_bucket.delete(lost)
    told = run("evaluate", "export-corrections", str(tmp_path), S3_ENDPOINT=gateway.settings.s3_endpoint).stdout
    assert told.splitlines()[0].startswith("2 corrected images")
    assert sorted(told.splitlines()[1:]) == [
        "Left out because an evaluation checks nothing that was corrected: 1",
        "Left out because the original is missing: 1",
    ]
    (found,) = evaluate(services, tmp_path, services.models.choices("describe"), services.prompts["describe"])
    assert {
        one.picture.image: one.picture.model_dump(by_alias=True, exclude_none=True)["expect"] for one in found.answers
    } == {
        f"{kinds['profile']}.jpg": {
            "quality_score": {"within": (0.0, 0.0)},
            "style": {"contains": ["baroque"]},
            "mood_keywords": {"in": ["airy"]},
        },
        f"{kinds['header']}.jpg": {"alt_text": {"contains": ["zeppelin", "Friedrichshafen"]}},
    }
    assert (tmp_path / f"{kinds['profile']}.jpg").read_bytes() == picture(seed=0)


def test_fields_of_every_kind_are_corrected_in_place_on_the_images_page(
    seeing_gateway: Gateway, browser: Browser
) -> None:
    gateway = seeing_gateway
    gateway.finish(7, site_image=picture())
    with visitor(browser, gateway.url, viewport={"width": 390, "height": 900}) as guest:
        guest.page.goto(f"{gateway.url}/media/1")

        def write(label: str, value: str, told: str = "Corrected.") -> None:
            row = guest.page.locator(f"dt:text-is('{label}') + dd")
            row.locator("summary").click()
            control = row.locator("[name=value]")
            if control.evaluate("one => one.tagName") == "SELECT":
                control.select_option(value)
            else:
                control.fill(value)
            row.locator("button:text-is('Save')").click()
            guest.page.wait_for_selector(f".notice:has-text('{told}')")

        write("Mood", "airy\nlight as air")
        write("Quality", "81")
        write("Confidence", "0.5")
        write("Objects", "Zeppelin | 0.5 | 0 0.25 1 0.5\nSky")
        write("Colours", "#12ff00 | 0.75")
        write("Brand", "Z")
        write("Good for", "ui_element")
        write("Fits its owner", "7")
        write("Colours", "red | 0.75", told="Nothing was changed: dominant_colors.0.hex")
        write("Objects", "Sky | much", told="Nothing was changed: detected_objects.0.score")
        expect(guest.page.get_by_label("Objects", exact=True)).to_have_value("Sky | much")
        expect(guest.page.get_by_label("Objects", exact=True)).to_be_visible()
        write("Alternative text", ALT)
        guest.page.wait_for_selector("text=corrected by this machine")
        assert gateway.rows("select alt_text from media_ai_analysis") == [(ALT,)]
        guest.page.click("dt:text('Alternative text') + dd summary")
        guest.page.click("dt:text('Alternative text') + dd >> text=Restore the model's")
        guest.page.wait_for_selector("text=The model's words are back")
    assert gateway.rows("select alt_text from media_ai_analysis") != [(ALT,)]
    now = gateway.get("/api/media/analysis/1", **gateway.as_worker).json()["analysis"]
    assert (now["mood_keywords"], now["quality_score"], now["confidence_score"], now["brand_name"]) == (
        ["airy", "light as air"], 81, 0.5, "Z",
    )  # fmt: skip
    assert now["detected_objects"] == [
        {"name": "Zeppelin", "score": 0.5, "box": [0.0, 0.25, 1.0, 0.5]},
        {"name": "Sky", "score": 1.0, "box": None},  # what the API fills in as well
    ]
    assert now["dominant_colors"] == [{"hex": "#12ff00", "share": 0.75}]
    assert (now["site_context"]["content_kind"], now["site_context"]["owner_fit"]) == ("ui_element", 7)
    assert now["site_context"]["owner_fit_reason"], "what was not written stays"
    for field in correcting.fields_of(now):
        if field.value is not None:
            sent_back = correcting.corrected(field.name, field.text, now)
            assert sent_back == {name: now[name] for name in sent_back}
