"""Deleting old files from staging, except what something still needs."""

import logging
from datetime import UTC, datetime

import pytest

from directory_sync.errors import PermanentError
from directory_sync.run import make_folder_name
from directory_sync.staging import retention, store
from directory_sync.staging.store import StoredFile
from directory_sync.tasks import review
from tests.company import Company, causes, counts, people
from tests.stand_in import OTHER_POOL_ID, POOL_ID, user


def list_run_ids(company: Company) -> list[str]:
    """List the ids of the runs with files in staging, in the order of their numbers."""
    folders = {path.parent.parent.name for path in company.staging_folder.rglob("manifest.json")}
    return sorted(
        folders, key=lambda name: int("".join(filter(str.isdigit, name.partition("%")[0])))
    )


def test_files_older_than_the_retention_are_deleted_and_younger_ones_stay(company: Company) -> None:
    company.pool.users = people(3)
    for _ in range(3):
        company.run()
        company.let_days_pass(20)
    company.run()
    assert list_run_ids(company) == ["manual__2%2B00%3A00", "manual__3%2B00%3A00"]
    assert not any(
        path.is_dir() and not list(path.iterdir()) for path in company.staging_folder.rglob("*")
    )


def test_signposts_to_deleted_files_are_deleted_too(company: Company) -> None:
    company.pool.users = people(3)
    for _ in range(2):
        company.run()
        company.let_days_pass(40)
    company.run()
    for kind in ("applied", "snapshots", "cleanings"):
        signposts = list(company.staging_folder.glob(f"*/*/{kind}/*"))
        assert len(signposts) == {"applied": 1, "snapshots": 2, "cleanings": 1}[kind], kind
        for signpost in signposts:
            assert kind == "cleanings" or store.read_manifest(signpost.read_text(encoding="utf-8"))


def test_the_newest_run_for_everybody_stays_since_reviews_plan_from_it(company: Company) -> None:
    company.pool.users = people(40)
    company.run()
    company.pool.users = company.pool.users[:5]
    company.run()
    held = company.run()
    assert causes(held)
    company.let_days_pass(400)
    company.run(users=["person000@example.org"])
    assert list_run_ids(company)[0] == "manual__2%2B00%3A00", "and the two runs before it are gone"
    mine = review.get_review_id("manual__mine", {})
    assert review.read_question("default", mine, by_hand=True)
    assert counts(company.answer(mine, "approve"))["deactivated"] == 35


def test_files_that_an_open_review_asks_about_stay(company: Company) -> None:
    company.configure(approval={"timeout_hours": 2000})
    company.pool.users = people(40)
    company.run()
    company.pool.users = company.pool.users[:5]
    company.run()
    company.run()
    review_id = company.ask()
    assert review_id
    company.let_days_pass(40)
    company.run()
    assert counts(company.answer(review_id, "approve"))["deactivated"] == 35
    company.let_days_pass(40)
    company.run()
    assert list_run_ids(company) == ["manual__4%2B00%3A00"], "and only as long as it is open"


def test_a_shown_undo_can_be_applied_as_long_as_its_own_files_stay(company: Company) -> None:
    company.pool.users = people(2)
    company.run()
    company.pool.users.append(user("new@example.org"))
    created = company.run()["run_id"]
    company.let_days_pass(20)
    company.run()
    shown = company.undo(created, dry_run=True)
    company.let_days_pass(20)
    company.run()
    undone = company.undo(created)
    assert counts(shown) == counts(undone)
    assert counts(undone)["deleted"] == 1


def test_the_error_says_that_a_run_cannot_be_undone_since_its_files_were_deleted(
    company: Company,
) -> None:
    company.pool.users = people(2)
    first = company.run()["run_id"]
    company.let_days_pass(40)
    company.run()
    before = company.joget.contents()
    with pytest.raises(PermanentError, match=r"can't be undone: files are deleted after 30 days"):
        company.undo(first)
    assert company.joget.contents() == before


def test_the_newest_complete_snapshot_stays(company: Company) -> None:
    company.pool.users = people(40)
    company.run()
    complete = company.run()
    company.faults.cut_users_after = 30
    for _ in range(3):
        company.let_days_pass(40)
        assert not company.run()["complete"]
    kept = {path.parent.parent.name for path in company.staging_folder.rglob("users.parquet")}
    assert {name.partition("%")[0] for name in kept} == {
        complete["run_id"].partition("+")[0],
        "manual__4",
    }


def test_a_ledger_lost_long_after_the_newest_run_for_everybody_is_rebuilt_from_its_files(
    company: Company,
) -> None:
    company.pool.users = people(4)
    company.run()
    company.run()
    company.let_days_pass(90)
    company.run(users=["person000@example.org"])
    for table in company.joget.column("SHOW TABLES LIKE 'directory_sync_%'"):
        company.joget.execute(f"DROP TABLE {table}")
    company.configure(policies={"existing_user": "quarantine"})
    report = company.run()
    assert any("ledger" in reason for reason in report["incomplete_reasons"])
    assert not report["quarantine"], "every linked user is linked again, and nobody was adopted"


def test_files_that_people_put_beside_the_runs_stay(company: Company) -> None:
    company.pool.users = people(2)
    company.run()
    home = company.staging_folder / "default" / company.settings["user_pool_id"]
    others = [
        company.staging_folder / "other" / "pool" / "run" / "load.1.abc" / "plan.parquet",
        company.staging_folder / "default" / "notes.txt",
        home / "manual__0%2B00%3A00" / "notes.txt",
        home / "manual__0%2B00%3A00" / "backup.1.abc" / "plan.parquet",
        home / "applied.bak" / "notes.txt",
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine", encoding="utf-8")
    company.let_days_pass(400)
    company.run()
    assert all(path.read_text(encoding="utf-8") == "mine" for path in others)
    assert not list(home.glob("manual__0*/load.*"))


def test_attempts_that_ended_before_their_manifest_are_deleted_too(company: Company) -> None:
    company.pool.users = people(2)
    company.run()
    half = (
        company.staging_folder
        / "default"
        / company.settings["user_pool_id"]
        / "dead"
        / "extract_users.1.abc"
    )
    half.mkdir(parents=True)
    (half / "users.parquet").write_bytes(b"half")
    company.let_days_pass(40)
    company.run()
    assert not half.exists()


def test_a_connection_of_another_name_makes_no_other_folder() -> None:
    home = "s3://new@bucket/staging/default"
    old = datetime(2026, 1, 1, tzinfo=UTC)
    files = [
        StoredFile(f"{home}/pool/{run}/load.1.abc/plan.parquet", old, 1)
        for run in ("needed", "other")
    ]
    stored = retention.sort_files(home, files)
    noted = {
        "s3://old@bucket/staging/default/pool/needed/load.1.abc",
        "s3://old@other/staging/default/pool/other/load.1.abc",
        "s3://new@bucket/staging/default_2/pool/other/load.1.abc",
    }
    kept = retention.find_in_home(home, noted)
    assert kept == {f"{home}/pool/needed/load.1.abc"}
    assert retention.choose_expired_files(stored, kept) == [[files[1]]]


def test_one_cleaning_deletes_a_limited_number_of_files_the_oldest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "MOST_FILES_AT_ONCE", 2)
    home = "file:///staging/default"
    days = [datetime(2026, 1, day, tzinfo=UTC) for day in (3, 1, 2)]
    files = [StoredFile(f"{home}/pool/run{at.day}/load.1.abc/plan.parquet", at, 1) for at in days]
    chosen = retention.choose_expired_files(retention.sort_files(home, files), kept=())
    assert chosen == [[files[1]], [files[2]]]


def test_old_files_are_looked_for_once_a_day(company: Company) -> None:
    company.pool.users = people(2)
    company.run()
    company.let_days_pass(40)
    company.run()
    company.run()
    home = company.staging_folder / "default" / company.settings["user_pool_id"]
    assert len(list((home / "cleanings").iterdir())) == 1


def test_another_pools_files_are_deleted_too_but_not_its_newest_run(company: Company) -> None:
    company.pool.users = people(3)
    company.run()
    newest = company.run()["run_id"]
    company.configure(user_pool_id=OTHER_POOL_ID)
    company.run()
    company.let_days_pass(40)
    company.run()
    first_pool = (company.staging_folder / "default" / POOL_ID).glob("manual__*")
    assert [folder.name for folder in first_pool] == [make_folder_name(newest)]


def test_a_retention_of_null_deletes_nothing(company: Company) -> None:
    company.configure(staging_retention_days=None)
    company.pool.users = people(2)
    company.run()
    company.let_days_pass(4000)
    company.run()
    assert len(list_run_ids(company)) == 2


def test_a_dry_run_deletes_nothing(company: Company) -> None:
    company.pool.users = people(2)
    company.run()
    company.run()
    company.let_days_pass(40)
    company.run(dry_run=True)
    assert len(list_run_ids(company)) == 3


def test_a_run_that_may_not_delete_is_applied_and_says_what_to_do(
    company: Company, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: object, path: str) -> None:
        raise PermissionError(path)

    company.pool.users = people(2)
    company.run()
    company.run()
    company.let_days_pass(40)
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.rm_file", refuse)
    with caplog.at_level(logging.WARNING):
        assert company.run()["outcome"] == "nothing_to_do"
    assert (
        "refuses us. Give the Connection in staging_url the rights to get, put, list and delete"
        in caplog.text
    )
    assert "set staging_retention_days to null" in caplog.text
    assert "older than 30 days" in caplog.text
