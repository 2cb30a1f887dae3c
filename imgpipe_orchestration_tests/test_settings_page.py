"""docs/settings.md is what settings.py says."""

from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.settings_page import FILE, render


def test_the_page_is_up_to_date() -> None:
    assert FILE.read_text() == render(), "run `make fix`"


def test_the_page_has_every_setting() -> None:
    page = render()
    for name in Settings.model_fields:
        assert f"| `{name.upper()}` |" in page, f"{name} stands under no section heading of settings.py"
