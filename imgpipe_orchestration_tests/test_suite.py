"""What the suite itself rests on."""

import pytest


@pytest.mark.xdist_group("together")
def test_tests_of_one_group_stay_in_one_worker(request: pytest.FixtureRequest) -> None:
    """A version of pytest that pytest-xdist does not know breaks this silently: each worker starts its own stack."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("runs under `--dist loadgroup` only, as `make test` has it")
    assert request.node.nodeid.endswith("@together")
