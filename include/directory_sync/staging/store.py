"""Staging on an object store: write-once folders that a manifest makes exist."""

import hashlib
import io
import json
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk import ObjectStoragePath
from pydantic import BaseModel, ConfigDict, ValidationError

from directory_sync import __version__, connections
from directory_sync.errors import PermanentError
from directory_sync.frames import make_frame, to_arrow_types
from directory_sync.run import Run, make_folder_name
from directory_sync.staging.manifest import STAGED_FORMAT, Manifest, StagedFile
from directory_sync.staging.store_errors import store_errors

ROWS_IN_A_PART = 50_000
"""Rows that a writer keeps in memory before they go to the store as one row group."""

READ_AHEAD_BYTES = 256 * 1024
"""A file that is read in parts fetches so many bytes more than were asked for; from S3, the default
is 50 MiB.
"""

MODIFIED_KEYS = ("LastModified", "mtime", "last_modified")
"""What S3, a local folder or Google Cloud, and Azure call the time of a file's last change."""

DELETIONS_AT_ONCE = 8

CONNECTION_TYPES = {"s3": "aws", "gs": "google_cloud_platform", "abfs": "wasb"}


class FrameWriter:
    """Writes rows of one Parquet file from several threads, a part at a time."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._schema = schema
        self._parquet = pq.ParquetWriter(file, schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self.rows = 0

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Add rows in the schema's columns."""
        with self._lock:
            self._rows += rows
            self.rows += len(rows)
            if len(self._rows) >= ROWS_IN_A_PART:
                self._flush()

    def close(self) -> None:
        """Write what is left and the file's footer."""
        with self._lock:
            self._flush()
            self._parquet.close()

    def _flush(self) -> None:
        if self._rows:
            self._parquet.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


@dataclass
class Folder:
    """One task attempt's folder: files are written once, and `seal` makes them exist."""

    url: str
    task: str
    run: Run
    _files: dict[str, StagedFile] = field(default_factory=dict)
    _opened: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since the attempt began."""
        return round(time.monotonic() - self._opened, 3)

    @contextmanager
    def rows(self, name: str, schema: pa.Schema) -> Iterator[FrameWriter]:
        """Stream rows into a Parquet file, in memory that doesn't grow with them."""
        with (
            store_errors(self.url),
            _create_file(f"{self.url}/{name}") as file,
            closing(FrameWriter(file, schema)) as writer,
        ):
            yield writer
        self._files[name] = StagedFile(rows=writer.rows, sha256=file.sha256)

    def frame(self, name: str, frame: pd.DataFrame) -> None:
        """Write a frame as a Parquet file, in parts."""
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        with store_errors(self.url), _create_file(f"{self.url}/{name}") as file:
            pq.write_table(table, file, compression="zstd", row_group_size=ROWS_IN_A_PART)
        self._files[name] = StagedFile(rows=len(frame), sha256=file.sha256)

    def frames(self, name: str, schema: pa.Schema, frames: Iterable[pd.DataFrame]) -> None:
        """Write frames one after the other as one Parquet file; columns that a frame lacks are
        null.
        """
        rows = 0
        with (
            store_errors(self.url),
            _create_file(f"{self.url}/{name}") as file,
            pq.ParquetWriter(file, schema, compression="zstd") as writer,
        ):
            for frame in frames:
                rows += len(frame)
                for start in range(0, len(frame), ROWS_IN_A_PART):
                    part = frame.iloc[start : start + ROWS_IN_A_PART]
                    writer.write_table(
                        pa.Table.from_pandas(
                            to_arrow_types(part, schema), schema=schema, preserve_index=False
                        )
                    )
        self._files[name] = StagedFile(rows=rows, sha256=file.sha256)

    def json(self, name: str, content: Any) -> None:
        """Write a value as JSON."""
        with store_errors(self.url), _create_file(f"{self.url}/{name}") as file:
            file.write(json.dumps(content, indent=2, ensure_ascii=False).encode())
        self._files[name] = StagedFile(rows=1, sha256=file.sha256)

    def seal(
        self,
        *,
        snapshot_at: datetime,
        counts: dict[str, int],
        complete: bool,
        incomplete_reasons: tuple[str, ...] = (),
        inputs: dict[str, str] | None = None,
        reused: str | None = None,
        needs: tuple[str, ...] = (),
    ) -> Manifest:
        """Write the manifest, after which the folder exists and never changes."""
        # The manifest comes last, so the files of an attempt that was killed are never read.
        manifest = Manifest(
            url=self.url,
            task=self.task,
            run_id=self.run.run_id,
            sync=self.run.sync.name,
            user_pool_id=self.run.sync.user_pool_id,
            snapshot_at=snapshot_at,
            seconds=self.seconds,
            files=self._files,
            counts=counts,
            complete=complete,
            incomplete_reasons=incomplete_reasons,
            inputs=inputs or {},
            reused=reused,
            needs=needs,
            format=STAGED_FORMAT,
            release=__version__,
        )
        with store_errors(self.url), _create_file(f"{self.url}/manifest.json") as file:
            file.write(manifest.model_dump_json(indent=2).encode())
        return manifest


def find_connection(url: str) -> tuple[str, str] | None:
    """The id and type of the Connection that a store's URL names; None for a folder."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return None
    return parts.netloc.rpartition("@")[0], CONNECTION_TYPES.get(parts.scheme, parts.scheme)


def require_access(url: str) -> None:
    """Check the Connection of a store's URL: the first call of every task, before any path is made.

    Raises PermanentError, or TransientError where the Connection can't be looked up now.
    """
    named = find_connection(url)
    if named is None:
        return
    conn_id, conn_type = named
    with connections.hold_connection(conn_id, conn_type, "staging_url"), store_errors(url):
        # Without credentials, an object-store path falls back to anonymous access.
        if (
            urlsplit(url).scheme == "s3"
            and S3Hook(aws_conn_id=conn_id).get_session().get_credentials() is None
        ):
            raise PermanentError(
                f"Connection {conn_id!r} holds no AWS credentials; staging at {url} needs them."
            )
        # Airflow makes a Connection's file system once in a process, by a lookup of its own. Here
        # that lookup finds the Connection; elsewhere, a failed one would mean anonymous access.
        _ = ObjectStoragePath(url).fs


def open_folder(run: Run, attempt: str) -> Folder:
    """A new folder for one attempt of one task; `attempt` is `<task id>.<try>.<unique>`."""
    task = attempt.partition(".")[0]
    return Folder(url=f"{run.sync.staging_url}/{run.folder}/{attempt}", task=task, run=run)


def list_sealed_folders(run: Run, run_id: str, task: str) -> list[Manifest]:
    """The manifests that a task left under a run id, oldest snapshot first; none where staging has
    nothing of it.
    """
    folder = f"{run.sync.staging_url}/{run.home}/{make_folder_name(run_id)}"
    attempts = [
        f"{folder}/{attempt}" for attempt in list_names(folder) if attempt.startswith(f"{task}.")
    ]
    # An attempt that ended early has no manifest, and to read it would raise MissingFilesError.
    found = [
        read_manifest(attempt) for attempt in attempts if "manifest.json" in list_names(attempt)
    ]
    return sorted(found, key=lambda manifest: manifest.snapshot_at)


def find_source(manifest: Manifest) -> Manifest:
    """The manifest of the folder that holds the files: another run's where a snapshot was used
    again.
    """
    return read_manifest(manifest.reused) if manifest.reused else manifest


def list_names(url: str) -> list[str]:
    """What lies in a folder, by name; nothing where there is no such folder."""
    with store_errors(url):
        path = ObjectStoragePath(url)
        # Listings are cached for the life of a process, and the API server's process lives long.
        path.fs.invalidate_cache()
        try:
            return sorted(child.name for child in path.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []


@dataclass(frozen=True)
class StoredFile:
    """A file as the store lists it."""

    url: str
    modified_at: datetime
    """By the store's clock."""
    size: int
    """Bytes."""


def list_files(url: str) -> list[StoredFile]:
    """Every file below a folder, at any depth; none where there is no such folder."""
    with store_errors(url):
        path = ObjectStoragePath(url)
        path.fs.invalidate_cache()
        try:
            found = path.fs.find(path.path, detail=True)
        except FileNotFoundError:
            return []
    root = path.path.rstrip("/") + "/"
    return [
        StoredFile(
            url=f"{url}/{key.removeprefix(root)}",
            modified_at=_get_modification_time(info),
            size=int(info["size"]),
        )
        for key, info in found.items()
    ]


def _get_modification_time(info: dict[str, Any]) -> datetime:
    at = next(info[key] for key in MODIFIED_KEYS if key in info)
    return at if isinstance(at, datetime) else datetime.fromtimestamp(float(at), UTC)


def delete_files(urls: Iterable[str]) -> None:
    """Delete files. A file that is gone already isn't an error.

    Raises PermanentError where the right is missing.
    """
    # One call for each file: s3fs says nothing of the files that a bulk deletion leaves.
    with ThreadPoolExecutor(DELETIONS_AT_ONCE) as deleters:
        for _ in deleters.map(_delete_file, urls):
            pass


def _delete_file(url: str) -> None:
    path = ObjectStoragePath(url)
    with store_errors(url):
        try:
            path.fs.rm_file(path.path)
        except FileNotFoundError:
            return
    if path.protocol == "file":
        # The file system's rmdir refuses a folder that holds something. The path's own rmdir would
        # delete what is in it.
        with suppress(OSError):
            path.fs.rmdir(path.parent.path)
            path.fs.rmdir(path.parent.parent.path)


def read_manifest(folder_url: str) -> Manifest:
    """The manifest of a sealed folder; raises PermanentError where there is none, it is damaged, or
    a newer release wrote it in a format that this one doesn't know.
    """
    with (
        store_errors(folder_url),
        ObjectStoragePath(f"{folder_url}/manifest.json").open("rb") as file,
    ):
        content = file.read()
    try:
        # First, since a field that a newer release added would look like damage.
        _refuse_newer(folder_url, content)
        return Manifest.model_validate_json(content)
    except ValidationError:
        raise _make_damage_error(folder_url, "manifest.json") from None


class _Writer(BaseModel):
    """What a manifest of any format says of the release that wrote it."""

    model_config = ConfigDict(extra="ignore")

    format: int = 1
    release: str = ""


def _refuse_newer(folder_url: str, content: bytes) -> None:
    writer = _Writer.model_validate_json(content)
    if writer.format > STAGED_FORMAT:
        raise PermanentError(
            f"Release {writer.release} of the sync wrote {folder_url}, in format {writer.format}. "
            f"This is release {__version__}, which knows format {STAGED_FORMAT}. Run release "
            f"{writer.release} or a newer one, or start a new run, which reads the pool again."
        )


def read_frame(manifest: Manifest, name: str) -> pd.DataFrame:
    """A staged Parquet file as a frame in Arrow types, after its hash was checked."""
    return read_parquet(_read_verified(manifest, name))


def read_column(folder_url: str, name: str, column: str) -> pa.Array:
    """One column of a Parquet file, without the others."""
    url = f"{folder_url}/{name}"
    with store_errors(url), ObjectStoragePath(url).open("rb") as file:
        return pq.read_table(file, columns=[column]).column(column).combine_chunks()


@contextmanager
def open_parquet(manifest: Manifest, name: str) -> Iterator[pq.ParquetFile]:
    """A staged Parquet file that is read in parts. Instead of its hash, its row count is checked.

    Raises PermanentError where it is gone or damaged.
    """
    with _open_in_parts(manifest, name) as file:
        found = pq.ParquetFile(file)
        _require_row_count(manifest, name, found.metadata)
        yield found


def find_rows(
    manifest: Manifest,
    name: str,
    column: str,
    values: Collection[str],
    *,
    columns: list[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of a staged Parquet file with one of these values in a column, with one row group in
    memory at a time. The hash isn't checked.
    """
    fits = pc.field(column).isin(list(values))
    with _open_in_parts(manifest, name) as file:
        fragment = ds.ParquetFileFormat().make_fragment(file)
        _require_row_count(manifest, name, fragment.metadata)
        # The dataset only chooses row groups here. Its scanner reads ahead in threads, and Arrow
        # aborts a process that ends while one of them still holds a Python file.
        opened = pq.ParquetFile(file, metadata=fragment.metadata)
        for part in fragment.split_by_row_group(fits):
            # By its statistics, this row group may have the values. Whether it really has them, the
            # searched column alone tells, and the other columns are read only if it does.
            (group,) = part.row_groups
            if len(opened.read_row_group(group.id, columns=[column]).filter(fits)):
                rows = opened.read_row_group(group.id, columns=columns).filter(fits)
                yield from rows.to_pylist()


@contextmanager
def _open_in_parts(manifest: Manifest, name: str) -> Iterator[IO[bytes]]:
    url = f"{manifest.url}/{name}"
    with store_errors(url), ObjectStoragePath(url).open("rb", block_size=READ_AHEAD_BYTES) as file:
        try:
            yield file
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the store's own error; Arrow's error for a broken page has no number
            raise _make_damage_error(manifest.url, name) from None


def _require_row_count(manifest: Manifest, name: str, metadata: pq.FileMetaData) -> None:
    if name not in manifest.files or metadata.num_rows != manifest.files[name].rows:
        raise _make_damage_error(manifest.url, name)


def read_parquet(content: bytes) -> pd.DataFrame:
    """A Parquet file's bytes as a frame in Arrow types."""
    return make_frame(pq.read_table(pa.BufferReader(content)))


def read_json(manifest: Manifest, name: str) -> Any:
    """A staged JSON file, after its hash was checked."""
    return json.loads(_read_verified(manifest, name))


def read_run(manifest: Manifest) -> Run:
    """The run.json of the run that a manifest belongs to, from the folder of its first task.

    Raises PermanentError where another release wrote it with settings that this one doesn't know.
    """
    while manifest.task != "extract_users":
        manifest = read_manifest(manifest.inputs["extract_users"])
    try:
        return Run.model_validate_json(_read_verified(manifest, "run.json"))
    except ValidationError:
        raise PermanentError(
            f"Release {manifest.release or 'before 0.1.0'} of the sync wrote "
            f"{manifest.url}/run.json, with settings "
            f"that this release, {__version__}, doesn't know. Start a new run, which reads the "
            "pool again."
        ) from None


def read_bytes(url: str) -> bytes:
    """A file's bytes. The caller checks their hash."""
    with store_errors(url), ObjectStoragePath(url).open("rb") as file:
        content: bytes = file.read()
    return content


def write_bytes(url: str, content: bytes) -> None:
    """Write a small file whole."""
    with store_errors(url), _create_file(url) as file:
        file.write(content)


def _read_verified(manifest: Manifest, name: str) -> bytes:
    content = read_bytes(f"{manifest.url}/{name}")
    if (
        name not in manifest.files
        or hashlib.sha256(content).hexdigest() != manifest.files[name].sha256
    ):
        raise _make_damage_error(manifest.url, name)
    return content


def _make_damage_error(folder_url: str, name: str) -> PermanentError:
    return PermanentError(
        f"Staged file {name} in {folder_url} isn't what its manifest says. Clear the run from "
        "extract_users on, so that everything is read again."
    )


class _HashedFile(io.RawIOBase):
    """A file to write to that knows the SHA-256 of what went in."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._length = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._hash.update(content)
        self._file.write(content)
        self._length += len(content)
        return len(content)

    def tell(self) -> int:
        return self._length

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def _create_file(url: str) -> Iterator[Any]:
    path = ObjectStoragePath(url)
    if path.protocol == "file":
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        yield _HashedFile(file)
