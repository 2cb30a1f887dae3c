"""What a thousand photographs, a report of ten images and a persona cost, at list prices.

Everything goes through the whole stack, and the bill is summed from the ledger's recorded usage. The stand-ins count
tokens as the providers' documentation does, and answer at about the length of real answers.
"""

from __future__ import annotations

from typing import Any

from bench_vision_reports import ORGANIZATION, execute
from running import bar, cron_job, options, render_by_the_stack, rows, running_stack, wait_for

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Stack

IMAGES = 10
"""Images of a report."""


def main() -> None:
    arguments = options(__doc__, photos=20, reports=2, people=2)
    with running_stack() as stack:
        render_by_the_stack(stack, [photos.large(n) for n in range(arguments.photos)])
        execute(stack, cron_job(stack, ORGANIZATION), arguments.reports, IMAGES)
        draw(stack, arguments.people)
        priced = "outcome = 'bought' and provider <> 'flowise'"
        unknown = rows(stack, f"select count(*) from paid_call_uses where {priced} and cost_usd is null")
        spent = rows(
            stack,
            """
            select pipeline, model, operation, count(*), sum(cost_usd) from paid_call_uses where outcome = 'bought'
            group by 1, 2, 3 order by 1, 5 desc nulls last
        """,
        )
    for pipeline, model, operation, calls, usd in spent:
        told = "of no list price" if usd is None else f"{usd:.6f} USD"
        print(f"{pipeline:15} {operation:10} {model:24} {calls:5} calls  {told}")
    assert unknown == [(0,)], "a model without a price"
    total = {name: float(sum(line[4] or 0 for line in spent if line[0] == name)) for name, *_ in spent}
    bar("usd_per_1000_photographs", 1000 * total["media"] / arguments.photos, 5.45)
    bar("usd_per_report_of_10_images", total["vision_reports"] / arguments.reports, 0.1)
    bar("usd_per_persona", total["avatars"] / arguments.people, 0.17)


def draw(stack: Stack, people: int) -> None:
    """Have people invented and drawn."""
    headers = stack.admin_headers()
    body = {"count": people, "brief": "Gardeners in Lisbon", "seed": 7}
    task = stack.accepted("POST", "/api/avatars/tasks", json=body, headers=headers).json()["task_id"]

    def drawn() -> dict[str, Any] | None:
        found: dict[str, Any] = stack.accepted("GET", f"/api/avatars/tasks/{task}", headers=headers).json()
        return found if found["status"] in {"completed", "failed", "cancelled"} else None

    ended = wait_for(drawn, "the avatars", 300)
    assert ended["status"] == "completed", ended


if __name__ == "__main__":
    main()
