"""What a thousand photographs, a report of ten images and a persona cost, at list prices; and the same at half price.

Everything goes through the whole stack, and the bill is summed from the ledger's recorded usage. The stand-ins count
tokens as the providers' documentation does, and answer at about the length of real answers. The photographs' part of
the half price is a backfill after a change of the question, for which Google is not asked again.
"""

from typing import Any

from bench_vision_reports import ORGANIZATION, execute
from running import bar, cron_job, launch, options, render_by_the_stack, rows, running_stack

from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.photos import large

IMAGES = 10
"""Images of a report."""


def main() -> None:
    arguments = options(__doc__, photos=20, reports=2, people=2)
    with running_stack() as stack:
        render_by_the_stack(stack, [large(n) for n in range(arguments.photos)])
        execute(stack, cron_job(stack, ORGANIZATION), arguments.reports, IMAGES)
        draw(stack, arguments.people)
        priced = "outcome = 'bought' and provider <> 'flowise'"
        unknown = rows(stack, f"select count(*) from paid_call_uses where {priced} and cost_usd is null")
        total, direct = bill(stack, ""), bill(stack, "and provider = 'openai'")
        rows(stack, "delete from paid_call_uses returning 1")
        rows(stack, "delete from paid_calls where provider = 'openai' returning 1")
        describe_again(stack, arguments.photos)
        execute(stack, cron_job(stack, ORGANIZATION, urgent=False), arguments.reports, IMAGES)
        draw(stack, arguments.people, urgent=False)
        half = bill(stack, "and provider = 'openai'")
    assert unknown == [(0,)], "a model without a price"
    bar("usd_per_1000_photographs", 1000 * total["media"] / arguments.photos, 5.45)
    bar("usd_per_report_of_10_images", total["vision_reports"] / arguments.reports, 0.1)
    bar("usd_per_persona", total["avatars"] / arguments.people, 0.17)
    for name in ("media", "vision_reports", "avatars"):
        bar(f"batches_over_direct_{name}", half[name] / direct[name], 0.52)


def bill(stack: Stack, of: str) -> dict[str, float]:
    """US dollars by pipeline; prints what they are made of."""
    spent = rows(
        stack,
        f"""
        select pipeline, model, operation, count(*), sum(cost_usd) from paid_call_uses where outcome = 'bought' {of}
        group by 1, 2, 3 order by 1, 5 desc nulls last
    """,
    )
    for pipeline, model, operation, calls, usd in spent:
        told = "of no list price" if usd is None else f"{usd:.6f} USD"
        print(f"{pipeline:15} {operation:10} {model:24} {calls:5} calls  {told}")
    return {name: float(sum(line[4] or 0 for line in spent if line[0] == name)) for name, *_ in spent}


def describe_again(stack: Stack, photographs: int) -> None:
    """A backfill that is not urgent, over analyses with other questions."""
    rows(stack, "update media_ai_analysis set version = 'old' returning 1")
    for (day,) in rows(stack, "select distinct upload_day::text from media_files"):
        launch(stack, "media_pipeline", {"dagster/partition": day, "urgent": "false"})
    current = "select count(*) from media_ai_analysis where version <> 'old'"
    wait_for(lambda: rows(stack, current) == [(photographs,)], "the backfill", 300, every=1.0)
    left = "select 1 from work_items where queue = 'media_unhurried_analysis' and state <> 'done'"
    wait_for(lambda: not rows(stack, left), "the last of the backfill", 60)


def draw(stack: Stack, people: int, **options: bool) -> None:
    """Have people invented and drawn."""
    body = {"count": people, "brief": "Gardeners in Lisbon", "seed": 7, **options}
    task = stack.operated("POST", "/api/avatars/tasks", body)["task_id"]

    def drawn() -> dict[str, Any] | None:
        found: dict[str, Any] = stack.operated("GET", f"/api/avatars/tasks/{task}")
        return found if found["status"] in {"completed", "failed", "cancelled"} else None

    ended = wait_for(drawn, "the avatars", 300)
    assert ended["status"] == "completed", ended


if __name__ == "__main__":
    main()
