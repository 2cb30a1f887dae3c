"""Commands run in this process, against the test's own servers."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from imgpipe_orchestration.cli import imgpipe
from imgpipe_orchestration.settings import Settings

Run = Callable[..., Result]


@pytest.fixture
def run(settings: Settings) -> Run:
    """Runs `imgpipe WORDS` with the environment of `settings`, plus what a test adds."""
    environment = {name: value for name, value in settings.environment().items() if value}

    def run(*words: str, **extra: str | None) -> Result:
        return CliRunner().invoke(imgpipe, list(words), env={**environment, **extra})

    return run
