"""What a run left in staging, opened by exact names that are written once. No folder is ever listed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from include.directory_sync import staging
from include.directory_sync.errors import PermanentError
from include.directory_sync.report import Report
from include.directory_sync.run import Run
from include.directory_sync.settings import Sync
from include.directory_sync.snapshot import Manifest

REMEMBERED = 500
"""Folders whose small files are kept in memory: they never change."""


@dataclass(frozen=True)
class Published:
    """One run's report and the manifests behind it, by task, that of the report's own task among them."""

    report: Report
    run: Run | None
    """What the run was asked to do; an undo reads no snapshot and has none."""
    manifests: dict[str, Manifest]
    folder: Manifest
    """That with plan.parquet and directory.parquet."""

    def files_of(self, name: str) -> Manifest | None:
        """The folder that holds a file of that name."""
        sources = [staging.source(manifest) for manifest in self.manifests.values()]
        return next((manifest for manifest in sources if name in manifest.files), None)


def published(sync: Sync, folder_url: str) -> Published:
    """What a run of this sync left.

    Raises PermanentError where it lies outside of the sync's staging (an XCom can be written by people too), where
    it was cleaned up or is damaged; TransientError where the store can't be reached.
    """
    if not folder_url.startswith(f"{sync.staging_url}/{sync.name}/") or "/../" in folder_url:
        raise PermanentError(
            f"This run's files lie outside of the sync's staging_url, {sync.staging_url}: the setting was changed "
            f"since, or somebody changed what the run noted. Nothing of it is shown."
        )
    staging.require_access(folder_url)
    return _published(folder_url)


@lru_cache(maxsize=REMEMBERED)
def _published(folder_url: str) -> Published:
    folder = staging.read_manifest(folder_url)
    manifests = {folder.task: folder}
    waiting = list(folder.inputs.values())
    while waiting:
        manifest = staging.read_manifest(waiting.pop())
        if manifest.task not in manifests:
            manifests[manifest.task] = manifest
            waiting += manifest.inputs.values()
    try:
        report = Report.model_validate(staging.read_json(folder, "report.json"))
        run = staging.read_run(manifests["extract_users"]) if "extract_users" in manifests else None
    except ValueError:
        raise PermanentError(
            f"The report in {folder_url} can't be read: it was written by another version, or changed since."
        ) from None
    return Published(report, run, manifests, folder)


def read_groups(
    file: pq.ParquetFile, columns: list[str], wanted: Callable[[int], bool] = lambda _group: True
) -> Iterator[tuple[int, pa.Table]]:
    """Columns of a file, a row group at a time, with the number of each one's first row; those that it has."""
    columns = [name for name in columns if name in file.schema_arrow.names]
    first = 0
    for group in range(file.num_row_groups):
        if wanted(group):
            yield first, file.read_row_group(group, columns=columns)
        first += file.metadata.row_group(group).num_rows
