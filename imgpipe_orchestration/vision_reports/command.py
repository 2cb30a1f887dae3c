"""One execution that is asked for on the command line. A Dagster run works on it, like on every other execution."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.partners.http import at_host
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import executions
from imgpipe_orchestration.vision_reports.model import ApiAccess, ExecutionStatus, ExecutionTrigger
from imgpipe_orchestration.web.texts import plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.wiring.services import Services

UNTAKEN_SECONDS = 60.0
"""How long an execution waits for a run before the user is told that none has taken it up."""
GIVEN_UP_SECONDS = 3600.0
"""How long it waits before it is withdrawn: a command that cron starts must not wait for ever."""
_LOOK_AGAIN_SECONDS = 1.0


def run_now(services: Services, connection: ApiAccess, say: Callable[[str], None]) -> Mapping[str, Any]:
    """Start one execution over `connection` and wait for its end. Returns it as in `executions.recent`.

    Args:
        say: is called with each line for the user.
    """
    say(f"{at_host('The Vision Analysis API', connection.get_url)}, organization {connection.organization_id}")
    number = 0  # of no execution
    try:
        with transaction(services.engine) as rows:
            number = executions.start(
                rows,
                services.claims,
                ExecutionTrigger.COMMAND,
                connection=executions.sealed(connection, services.vault),
                tenant=connection.organization_id,
            ).id
        return _ended(services, number, say)
    except KeyboardInterrupt:
        for left in executions.recent(services.engine, number, by="id"):
            place = services.settings.dagster_url + (f"/runs/{left['run_id']}" if left["run_id"] else "")
            say(f"Execution {number} goes on without this command. Look at it in Dagster: {place}")
        raise


def _ended(services: Services, number: int, say: Callable[[str], None]) -> Mapping[str, Any]:
    """The execution, once it has ended."""
    said: set[int] = set()
    began, warned = time.monotonic(), False
    while True:
        time.sleep(_LOOK_AGAIN_SECONDS)
        try:
            (execution,) = executions.recent(services.engine, number, by="id")
        except BackendUnavailable as away:
            say(f"Execution {number} goes on, but cannot be looked at: {away.public}")
            continue
        for outcome in execution["analyses"]:
            if outcome["finished_at"] and outcome["analysis_id"] not in said:
                said.add(outcome["analysis_id"])
                name = outcome["run_code"] or plain_text(outcome["vision_analysis_id"], 200)
                end = "delivered" if outcome["status"] == "success" else f"failed: {outcome['error']}"
                say(f"{name}: {end}")
        if execution["status"] != ExecutionStatus.RUNNING:
            return execution
        waited = 0.0 if execution["run_id"] else time.monotonic() - began
        if waited > UNTAKEN_SECONDS and not warned:
            warned = True
            say(f"No run has taken up execution {number} yet. It waits until Dagster runs: start `imgpipe up`.")
        if waited > GIVEN_UP_SECONDS:
            with transaction(services.engine) as rows:
                executions.withdraw(rows, services.claims, number, "No run of Dagster took it up within an hour")
