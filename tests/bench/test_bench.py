"""The measuring itself, at a size that takes seconds: no test asserts a time."""

from bench import extraction, loading
from bench.results import Results
from bench.world import world


def test_every_measurement_is_compared_with_its_floor_and_the_alternatives() -> None:
    results = Results()
    with world(extraction.RATE) as here:
        extraction.measure(here, results, 300, 0.01, chain=True)
        loading.measure(here, results, 300, python=None, patience=1)
    found = {(one.work, one.who) for one in results.times}
    assert ("extraction, 10 ms latency", "one boto3 paginator chain") in found
    works = {
        (work, f"ours: {task}")
        for work in (loading.FIRST, loading.NOTHING)
        for task in ("transform", "load")
    }
    assert (
        works | {(loading.FIRST, "floor: raw LOAD DATA"), (loading.NOTHING, "floor: raw SELECT")}
        <= found
    )
    assert all(one.seconds > 0 for one in results.times)
    page = results.page("Remarks.")
    assert "| 300 users: first load | at most 1.8 times |" in page
    assert page.endswith("Remarks.\n")
