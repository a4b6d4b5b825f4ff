"""What a run left in staging. Files are opened by their exact names, and are written only once. No
folder is ever listed.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from directory_sync.errors import MissingFilesError, PermanentError
from directory_sync.report import Quarantined, Report
from directory_sync.run import Run
from directory_sync.settings import Sync
from directory_sync.staging import store
from directory_sync.staging.manifest import Manifest

MOST_FOLDERS_REMEMBERED = 300
"""How many folders' small files are kept in memory: they never change."""

MOST_QUARANTINED = 1_000
"""How many records of a run's quarantine are kept in memory: a wrong mapping can put everybody in
it.
"""


@dataclass(frozen=True)
class PublishedRun:
    """One run's report, and the folders with the files behind it."""

    report: Report
    """Without its quarantine."""
    quarantine: tuple[Quarantined, ...]
    """The first records, by entity and key."""
    quarantined: int
    """How many records there are in all."""
    run: Run | None
    """What the run was asked to do; an undo reads no snapshot and has none."""
    manifests: dict[str, Manifest]
    """Manifests by task, with the one of the report's own task."""
    holders: dict[str, Manifest]
    """By file, the folder that has it: another run's where a snapshot was used again."""
    folder: Manifest
    """The folder with plan.parquet and directory.parquet."""

    def is_quarantined(self, entity: str, key: str) -> bool:
        """Whether a record is in quarantine. A record with a larger key than all those that are
        kept (MOST_QUARANTINED) is assumed to be.
        """
        if any((record.entity, record.key) == (entity, key) for record in self.quarantine):
            return True
        # The records that are kept are the first by key, so one with a smaller key than the last of
        # them would be among them.
        return self.quarantined > len(self.quarantine) and (entity, key) > _key_by(
            self.quarantine[-1]
        )

    def find_rows(
        self, name: str, column: str, values: Collection[str], **options: Any
    ) -> Iterator[dict[str, Any]]:
        """The rows of a file with one of these values in a column (staging.store.find_rows); none
        where no folder has the file.
        """
        holder = self.holders.get(name)
        if holder is not None and values:
            yield from store.find_rows(holder, name, column, values, **options)


def open_published_run(sync: Sync, folder_url: str) -> PublishedRun:
    """What a run of this sync left.

    Raises PermanentError where the folder lies outside the sync's staging or is damaged;
    MissingFilesError where it was deleted; TransientError where the store can't be reached.
    """
    try:
        return _make_published_run(f"{sync.staging_url}/{sync.name}", folder_url)
    except MissingFilesError:
        days = sync.staging_retention_days
        after = f" They are deleted after {days} days (staging_retention_days)." if days else ""
        raise MissingFilesError(
            f"This run's files aren't in staging any more.{after} The counts of the run are in "
            "Airflow, as the XCom value of its task."
        ) from None


def _read_manifest(home: str, folder_url: str) -> Manifest:
    # The URL is from an XCom, which people can write too. Dots are refused, since a path with them
    # begins with the sync's folder and leads out of it.
    inside = folder_url.startswith(f"{home}/") and not {".", ".."} & set(folder_url.split("/"))
    if not inside:
        raise PermanentError(
            f"This run's files lie outside of the sync's staging, {home}: staging_url was changed "
            "since, or somebody changed the run's XCom value. Nothing of the run is shown."
        )
    manifest = store.read_manifest(folder_url)
    # The files are opened below manifest.url: a copied manifest would lead to another folder.
    if manifest.url != folder_url:
        raise PermanentError(
            f"The manifest in {folder_url} is another folder's. Nothing of it is shown."
        )
    return manifest


# A sealed folder never changes. lru_cache keeps no exception, so an error is tried again.
@lru_cache(maxsize=MOST_FOLDERS_REMEMBERED)
def _make_published_run(home: str, folder_url: str) -> PublishedRun:
    folder = _read_manifest(home, folder_url)
    # Each manifest names those that it was made from, so no folder has to be listed: the file
    # system of a long-lived process, such as the API server, caches listings.
    manifests = {folder.task: folder}
    waiting = list(folder.inputs.values())
    while waiting:
        manifest = _read_manifest(home, waiting.pop())
        if manifest.task not in manifests:
            manifests[manifest.task] = manifest
            waiting += manifest.inputs.values()
    holders: dict[str, Manifest] = {}
    for manifest in manifests.values():
        holder = _read_manifest(home, manifest.reused) if manifest.reused else manifest
        holders |= dict.fromkeys(holder.files, holder)
    try:
        content = store.read_json(folder, "report.json")
        quarantine = sorted(
            content.pop("quarantine"), key=lambda record: (record["entity"], record["key"])
        )
        kept = tuple(Quarantined.model_validate(record) for record in quarantine[:MOST_QUARANTINED])
        report = Report.model_validate({**content, "quarantine": ()})
        run = store.read_run(manifests["extract_users"]) if "extract_users" in manifests else None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise PermanentError(
            f"The report in {folder_url} can't be read: it was written by another version, or "
            "changed since."
        ) from None
    return PublishedRun(report, kept, len(quarantine), run, manifests, holders, folder)


def _key_by(record: Quarantined) -> tuple[str, str]:
    return record.entity, record.key
