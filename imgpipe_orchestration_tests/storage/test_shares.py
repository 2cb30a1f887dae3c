"""Places of which no tenant has all, and who waits for one."""

from concurrent.futures import ThreadPoolExecutor

from imgpipe_orchestration.storage.work import Shares
from imgpipe_orchestration_tests.devstack.running import wait_for


def test_it_is_crowded_for_who_has_places_while_another_waits() -> None:
    places = Shares(2, 1)

    def work(tenant: str) -> None:
        with places.place(tenant):
            pass

    with ThreadPoolExecutor(2) as pool, places.place("slow"), places.place("slower"):
        assert not places.crowded("slow")
        pool.submit(work, "slow")
        good = pool.submit(work, "good")
        wait_for(lambda: places.crowded("slow"), "another to wait", 10)
        assert places.crowded("slower") and not good.done()
    good.result(10)
