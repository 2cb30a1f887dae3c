"""What was there before anybody judged: nothing happens to it until somebody says what."""

from collections.abc import Callable

import dagster as dg
import pytest
from click.testing import CliRunner

from imgpipe_orchestration.cli.upkeep import moderate
from imgpipe_orchestration.dagster_side.assets import DUE_ONLY
from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.media import intake
from imgpipe_orchestration.operations import existing, review
from imgpipe_orchestration.operations.assets import verdicts
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.lifecycle.conftest import call, finished
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.moderation.conftest import OTHER, process, saying, send, verdict

LIBRARY = 210
"""More than two batches of `existing.run`."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_library_of_several_batches_stays_shown_until_it_is_judged_and_comes_back(
    make_gateway: Callable[..., Gateway], standins: StandInAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = make_gateway(**standins.seeing, moderation="off")
    clear, doubtful = send(off, picture(seed=1)), send(off, saying("sexual=0.9", seed=2))
    process(off)
    off.rows(
        """
        insert into media_files (main_api_id, user_id, data_type, kind, image_path, sha256, mime_type, bulk_path,
            status, upload_day)
        select -n, 456, f.data_type, f.kind, f.image_path || n, f.sha256, f.mime_type, f.bulk_path, 'completed',
            f.upload_day
        from media_files f, generate_series(1, :n) n where f.id = :id returning 1
        """,
        n=LIBRARY - 2,
        id=clear.media_id,
    )
    with pytest.raises(BadInput, match="MODERATION is off"):
        existing.judge(off.services, hide=False)
    hold = make_gateway(**standins.seeing, moderation="hold")
    found = existing.look(hold.services)
    assert (found.unjudged, found.usd, found.provider) == (LIBRARY + 2, 0, "openai")
    assert hold.get(f"/serve/{doubtful.media_id}").status_code == 200
    for name, value in hold.settings.environment().items():
        monkeypatch.setenv(name, value)
    said = CliRunner().invoke(moderate, ["--existing", "--yes"])
    assert said.exit_code == 0, said.output
    assert f"{LIBRARY + 2} without a verdict (openai costs at most 0.00 USD)" in said.output
    assert hold.get(f"/serve/{doubtful.media_id}").status_code == 200
    for turn in range(20):
        process(hold, f"run-{turn}")
        if not hold.rows("select 1 from verdicts where state = 'waiting' limit 1"):
            break
    states = {row.state: row.n for row in hold.rows("select state, count(*) as n from verdicts group by state")}
    assert states == {"clear": LIBRARY, "held": 2}
    assert hold.get(f"/serve/{doubtful.media_id}").status_code == 403
    assert hold.get(f"/serve/{clear.media_id}").status_code == 200
    assert len(standins.calls("openai", "moderations")) <= 3, "the same bytes are asked about once"


@pytest.mark.parametrize("options", [["--hide"], ["--release", "--hide"], ["--existing", "--release"]], ids=" ".join)
def test_options_that_contradict_each_other_do_nothing(options: list[str]) -> None:
    said = CliRunner().invoke(moderate, [*options, "--yes"])
    assert (said.exit_code, "--hide goes with --existing, --release with neither" in said.output) == (2, True)


def test_what_was_only_reported_is_judged_like_the_rest(
    make_gateway: Callable[..., Gateway], standins: StandInAccess
) -> None:
    off, hold = (make_gateway(**standins.seeing, moderation=mode) for mode in ("off", "hold"))
    sent = send(off, saying("sexual=0.9", seed=4))
    process(off)
    answer = call(off, "POST", f"/api/media/{sent.media_id}/report", OTHER, json={"reason": "Mine"})
    assert answer.status_code == 202, answer.text
    alone = make_gateway(moderation="flag", moderation_provider="none").services
    assert [existing.judge(alone, hide=False) for _ in range(2)] == [1, 0]
    assert "2 images were never judged. Judging them costs nothing." in hold.get("/review").text
    assert existing.judge(hold.services, hide=True) == 2
    assert sent.shown() == {}
    process(hold)
    assert verdict(hold, sent.media_id)["state"] == "held"


def test_what_waits_when_the_mode_is_changed_stays_held_until_somebody_shows_it(
    holding: Gateway, make_gateway: Callable[..., Gateway], standins: StandInAccess
) -> None:
    standins.fault("openai", "server_error", operation="moderations", count=None, status=503)
    media_id = finished(holding, seed=3)
    with pytest.raises(BadInput, match="MODERATION is hold"):
        existing.release(holding.services)
    off = make_gateway(moderation="off")
    assert off.get(f"/serve/{media_id}").status_code == 403
    assert existing.look(off.services).unshown == 1
    assert existing.release(off.services) == 1
    wait_for(lambda: off.get(f"/serve/{media_id}").status_code == 200, "the gateway to hear of it", 60)


def test_what_is_held_and_was_never_asked_about_is_counted_and_listed_when_the_mode_is_changed(
    holding: Gateway, make_gateway: Callable[..., Gateway]
) -> None:
    sent = send(holding, picture(seed=5))
    intake.take_in(holding.services)
    off = make_gateway(moderation="off")
    assert existing.look(off.services).unshown == 2
    process(off)
    assert sent.shown() == {}
    with transaction(off.services.engine) as connection:
        waiting = review.waiting(connection, limit=10)
    assert [(one.kind, one.reason) for one in waiting] == [
        ("media", "No provider is asked: a person decides."),
        ("listings", "No provider is asked: a person decides."),
    ]
    assert existing.look(off.services).unshown == existing.release(off.services) == 2
    assert existing.look(off.services).unshown == 0
    wait_for(lambda: {*sent.shown().values()} == {200}, "the gateway to hear of it", 60)


def test_a_sensors_run_in_which_nothing_could_be_judged_materializes_no_verdicts(
    holding: Gateway, standins: StandInAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    standins.fault("openai", "server_error", operation="moderations", count=None, status=503)
    finished(holding, seed=4)
    for name, value in holding.settings.environment().items():
        monkeypatch.setenv(name, value)

    def judged(due_only: str = "true") -> list[object]:
        holding.services.claims.hasten(existing.JUDGE)
        run = dg.materialize([verdicts], resources={"backends": BackendsResource()}, tags={DUE_ONLY: due_only})
        return [made.metadata["judged"].value for made in run.asset_materializations_for_node("verdicts")]

    assert judged() == []
    assert judged("false") == [0], "Dagster would call a person's backfill failed"
    standins.admin("DELETE", "faults")
    assert judged() == [1]
