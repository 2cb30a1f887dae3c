"""The outside world as a Dagster resource: what `settings` name, the same for every run and every tick.

It has no fields: another database or key is another deployment. Nothing heavy is imported and nothing is opened before
a run or a sensor asks.
"""

import logging
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgpipe_orchestration import logs

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.settings import Settings


class BackendsResource(dg.ConfigurableResource[Any]):
    """Everything a stage needs: rows, objects, documents and partners, as the environment names them."""

    @property
    def services(self) -> "Services":
        """The same `Services` that the gateway uses, opened on first use and kept for the process: a sensor that ticks
        every few seconds should not sign in to PostgreSQL each time.

        Raises:
            SettingsError: naming the variable that is missing or wrong.
        """
        from imgpipe_orchestration.settings import load

        return _services_of(load())

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """In a run that we did not fork (in a pod of its own, or of the `dagster` command) see to the logs: warnings of
        its steps would go out unredacted, and all else nowhere."""
        if context.run is not None and not logging.getLogger().handlers:
            logs.configure_as_set(self.services.settings)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End the worker processes of a run; connections stay for the next tick."""
        self.services.close_workers()


_KEPT: "dict[Settings, Services]" = {}
_MOST_KEPT = 2


def _services_of(settings: "Settings") -> "Services":
    """The `Services` of these settings; a process knows one set of settings, tests know many."""
    from imgpipe_orchestration import tracing
    from imgpipe_orchestration.services import Services

    found = _KEPT.get(settings)
    if found is None:
        while len(_KEPT) >= _MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT))).close()
        tracing.configure(settings.otel_exporter_otlp_endpoint)
        found = _KEPT[settings] = Services(settings)
    return found
