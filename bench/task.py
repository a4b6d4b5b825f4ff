"""One task of the sync in a process of its own: `python -m bench.task TASK RUN_ID URL…` says what
it took.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable

from bench.memory import peak_mib
from directory_sync.run import Attempt
from directory_sync.staging.manifest import Manifest
from directory_sync.tasks import extract, load, transform


def sync_one_user(attempt: Attempt, login: str) -> Manifest:
    """All tasks of a run for one user."""
    users = extract.extract_users(
        attempt.of_task("extract_users"), "default", {"users": [login]}, {}
    )
    groups = extract.extract_groups(attempt.of_task("extract_groups"), users.url)
    mapped = transform.transform_snapshot(attempt.of_task("transform"), users.url, groups.url)
    return load.load_snapshot(attempt.of_task("load"), mapped.url)


TASKS: dict[str, Callable[..., Manifest]] = {
    "extract_users": lambda attempt: extract.extract_users(attempt, "default", {}, {}),
    "extract_groups": extract.extract_groups,
    "transform": transform.transform_snapshot,
    "load": load.load_snapshot,
    "one_user": sync_one_user,
}


def main() -> None:
    """Run it; the last line of output is JSON: seconds (without imports), peak_mib, url."""
    task, run_id, *urls = sys.argv[1:]
    attempt = Attempt(name=f"{task}.1.{uuid.uuid4().hex[:12]}", run_id=run_id)
    began = time.perf_counter()
    manifest = TASKS[task](attempt, *urls)
    print(
        json.dumps(
            {"seconds": time.perf_counter() - began, "peak_mib": peak_mib(), "url": manifest.url}
        )
    )


if __name__ == "__main__":
    main()
