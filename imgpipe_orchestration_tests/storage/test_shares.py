"""Places of which no tenant has all."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

from imgpipe_orchestration.storage.work import Shares
from imgpipe_orchestration_tests.devstack.running import wait_for


def test_one_tenant_leaves_a_place_to_others_and_has_it_back_later() -> None:
    places, over, working, counts = Shares(3), Event(), list[str](), list[int]()

    def work(tenant: str) -> None:
        with places.place(tenant) as held:
            counts.append(held)
            working.append(tenant)
            over.wait(10)

    with ThreadPoolExecutor(5) as pool:
        slow = [pool.submit(work, "slow") for _ in range(3)]
        wait_for(lambda: len(working) == 2, "all places but one to be taken", 10)
        good = pool.submit(work, "good")
        wait_for(lambda: "good" in working, "the other tenant to have a place", 10)
        assert working.count("slow") == 2
        over.set()
        for one in (*slow, good):
            one.result(10)
    assert working.count("slow") == 3
    assert sorted(counts[:3]) == [1, 2, 3], "each is told how many places are held"
