"""From a cron job to the delivered report, over the real protocols."""

from imgpipe_orchestration_tests.vision_reports.conftest import Desk, data_of


def test_an_unprocessed_analysis_becomes_a_report_at_the_external_api(desk: Desk) -> None:
    analysis = desk.seed(images=3, dead_link=True, expired_sas=True, user_query="Find <rust> & dents")

    with desk.serving() as gateway:
        execution = desk.execute(backend_api_url=gateway)

    assert (execution["status"], execution["total"], execution["successful"], execution["failed"]) == (
        "success", 1, 1, 0,
    )  # fmt: skip
    (report,) = desk.reports
    outcome = execution["analyses"][0]
    assert report["filename"] == f"report_{outcome['batch_id']}.html"
    assert report["vision_analysis_id"] == analysis["vision_analysis_id"]
    assert (outcome["images_total"], outcome["images_usable"]) == (5, 3)
    html = report["html"]
    assert "Find &lt;rust&gt; &amp; dents" in html
    assert "there is nothing there (HTTP 404)" in html
    assert "the link has expired" in html
    assert "sig=" not in html
    data = data_of(html)
    assert [image["name"] for image in data["images"]] == [
        "vision_run_001_01.jpg", "vision_run_001_02.jpg", "vision_run_001_03.jpg",
    ]  # fmt: skip
    assert data["images"][0]["description"] == "Photograph vision_run_001_01.jpg"
    assert 800 <= data["images"][0]["measured"]["width"] < 1000
    assert len(data["missing"]) == 2
    assert data["standin"] is True


def test_a_report_that_is_not_urgent_costs_half_and_is_the_same(desk: Desk) -> None:
    desk.seed(images=3, user_query="Find rust")
    with desk.serving() as gateway:
        assert desk.execute(backend_api_url=gateway, urgent=False)["status"] == "success"
    uses = desk.sql("select outcome, half_price from paid_call_uses where operation = 'responses'")
    assert {tuple(use) for use in uses} == {("bought", True)}
    assert len(desk.standins.calls("openai", "batches")) == 1
    asked = desk.standins.calls("openai", "responses")
    assert [call["note"] for call in asked] == [{"in_batch": True}] * 3
    (report,) = desk.reports
    assert len(data_of(report["html"])["images"]) == 3
