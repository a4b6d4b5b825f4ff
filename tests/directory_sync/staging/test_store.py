"""Staging on a folder and on S3: write-once folders that a manifest makes exist."""

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import s3fs

from demo.aws import Aws
from directory_sync.errors import MissingFilesError, PermanentError, TransientError
from directory_sync.frames import make_frame_of_rows
from directory_sync.run import Run
from directory_sync.settings import Sync
from directory_sync.staging import store
from tests.directory_sync.test_settings import sync

SCHEMA = pa.schema([("sub", pa.string()), ("count", pa.int64())])
AT = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(params=["file", "s3"])
def run(
    request: pytest.FixtureRequest, tmp_path: Path, moto: Aws, aws_connection: Callable[[str], None]
) -> Run:
    url = f"file://{tmp_path}/staging"
    if request.param == "s3":
        aws_connection(moto.endpoint)
        moto.client("s3").create_bucket(Bucket="staging-tests")
        url = "s3://cognito_aws@staging-tests/some/prefix"
    run_id = f"scheduled__2026-11-23T00:00:00+00:00 {tmp_path.name}"
    return Run(run_id=run_id, sync=Sync.model_validate(sync(staging_url=url)), dry_run=False)


def test_staged_frames_are_read_back_with_their_types(run: Run) -> None:
    store.require_access(run.sync.staging_url)
    folder = store.open_folder(run, "transform.1.abc")
    frame = make_frame_of_rows(
        [{"sub": "é 🎉 \\N\t%", "count": None}, {"sub": None, "count": 2**60}], SCHEMA
    )
    folder.frame("a.parquet", frame)
    with folder.rows("b.parquet", SCHEMA) as rows:
        rows.write([{"sub": "x", "count": 1}])
        rows.write([])
    folder.json("c.json", {"ä": [1]})
    sealed = folder.seal(snapshot_at=AT, counts={"rows": 2}, complete=True)
    read = store.read_manifest(sealed.url)
    assert read == sealed
    assert store.read_frame(read, "a.parquet").equals(frame)
    assert store.read_frame(read, "b.parquet").to_dict("records") == [{"sub": "x", "count": 1}]
    assert store.read_json(read, "c.json") == {"ä": [1]}
    assert {name: file.rows for name, file in read.files.items()} == {
        "a.parquet": 2,
        "b.parquet": 1,
        "c.json": 1,
    }
    assert (
        "/default/us-east-1_Example1/scheduled__2026-11-23T00%3A00%3A00%2B00%3A00%20" in sealed.url
    )


def test_an_opened_file_is_fetched_only_as_far_as_it_is_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.open_folder(run, "load.1.abc")
    rows = [
        {"sub": hashlib.sha512(b"%d" % number).hexdigest(), "count": number}
        for number in range(100_000)
    ]
    folder.frame("a.parquet", make_frame_of_rows(rows, SCHEMA))
    sealed = folder.seal(snapshot_at=AT, counts={}, complete=True)
    fetched = []
    fetch = s3fs.core.S3File._fetch_range

    def count_bytes(self: Any, start: int, end: int) -> Any:
        fetched.append(end - start)
        return fetch(self, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", count_bytes)
    with store.open_parquet(sealed, "a.parquet") as file:
        assert file.read_row_group(1, columns=["count"]).column("count").to_pylist() == list(
            range(50_000, 100_000)
        )
    assert sum(fetched) < 2_000_000, "and the whole file has more than six"
    assert bool(fetched) == run.sync.staging_url.startswith("s3:")


def test_without_its_manifest_nothing_exists(run: Run) -> None:
    folder = store.open_folder(run, "transform.1.abc")
    folder.json("c.json", {})
    with pytest.raises(PermanentError, match="Staging has nothing at"):
        store.read_manifest(folder.url)


def test_a_file_that_the_manifest_does_not_name_does_not_exist(run: Run) -> None:
    folder = store.open_folder(run, "transform.1.abc")
    sealed = folder.seal(snapshot_at=AT, counts={}, complete=True)
    folder.json("late.json", {})
    with pytest.raises(PermanentError, match=r"late\.json"):
        store.read_json(store.read_manifest(sealed.url), "late.json")


def test_rows_are_streamed_in_parts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROWS_IN_A_PART", 1000)
    folder = store.open_folder(run, "extract_users.1.abc")

    def peak(pages: int) -> int:
        tracemalloc.start()
        with folder.rows(f"{pages}.parquet", SCHEMA) as rows:
            for page in range(pages):
                rows.write([{"sub": f"{page}-{number}", "count": number} for number in range(100)])
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(400) < 2 * peak(40), "ten times the pages, and not even twice the memory"


def test_files_are_listed_at_any_depth_and_deleted_one_by_one(run: Run) -> None:
    home = f"{run.sync.staging_url}/{run.folder}"
    assert store.list_files(home) == []
    first, second = (store.open_folder(run, f"load.{number}.abc") for number in (1, 2))
    for folder in (first, second):
        folder.json("c.json", {"number": 1})
        folder.seal(snapshot_at=AT, counts={}, complete=True)
    before = datetime.now(UTC) - timedelta(minutes=10)
    listed = {file.url: file for file in store.list_files(home)}
    assert set(listed) == {
        f"{folder.url}/{name}" for folder in (first, second) for name in ("c.json", "manifest.json")
    }
    assert all(file.modified_at > before for file in listed.values())
    assert listed[f"{first.url}/c.json"].size == len('{\n  "number": 1\n}')
    gone = [f"{first.url}/c.json", f"{first.url}/manifest.json"]
    store.delete_files(gone)
    store.delete_files(gone)
    assert {file.url for file in store.list_files(home)} == set(listed) - set(gone)
    with pytest.raises(MissingFilesError):
        store.read_manifest(first.url)
    assert store.read_manifest(second.url)


def test_a_store_that_is_down_is_transient(
    tmp_path: Path, aws_connection: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_connection("http://127.0.0.1:9")
    # Airflow keeps the store of a Connection for the life of a process, so this is a Connection of
    # its own.
    monkeypatch.setenv("AIRFLOW_CONN_DOWN", os.environ["AIRFLOW_CONN_COGNITO_AWS"])
    run = Run(
        run_id="r", sync=Sync.model_validate(sync(staging_url="s3://down@bucket/p")), dry_run=False
    )
    with pytest.raises(TransientError, match="can't be reached"):
        store.open_folder(run, "a.1.b").json("c.json", {})


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    run = Run(
        run_id="r",
        sync=Sync.model_validate(sync(staging_url=f"file://{tmp_path}/file")),
        dry_run=False,
    )
    with pytest.raises((PermanentError, TransientError), match="Staging at"):
        store.open_folder(run, "a.1.b").json("c.json", {})
