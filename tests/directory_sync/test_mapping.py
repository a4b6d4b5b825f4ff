"""From the snapshot to Joget's columns, without any server."""

import string
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory_sync import mapping
from directory_sync.cognito import snapshot
from directory_sync.frames import make_frame_of_rows
from directory_sync.mapping import Desired
from directory_sync.settings import Mapping, Scope

POOL_ID = "us-east-1_Example1"


def transform(
    *users: dict[str, Any],
    groups: tuple[str, ...] = (),
    memberships: tuple[tuple[str, str], ...] = (),
    settings: Mapping | None = None,
    scope: Scope | None = None,
) -> Desired:
    settings = settings or Mapping()
    rows = [snapshot.make_user_row(user, settings.attributes) for user in users]
    return mapping.map_snapshot(
        make_frame_of_rows(rows, snapshot.make_users_schema(settings.attributes)),
        make_frame_of_rows([{"group_name": name} for name in groups], snapshot.GROUPS_SCHEMA),
        make_frame_of_rows(
            [{"group_name": name, "sub": sub} for sub, name in memberships],
            snapshot.MEMBERSHIPS_SCHEMA,
        ),
        mapping=settings,
        scope=scope or Scope(),
        user_pool_id=POOL_ID,
    )


def make_listed_user(
    sub: str | None = "s1", *, enabled: bool = True, status: str = "CONFIRMED", **attributes: str
) -> dict[str, Any]:
    """Make a user as ListUsers gives it; `custom__x` is the attribute custom:x."""
    values = {"email": "ana@example.org", "given_name": "Ana", "family_name": "Lima", **attributes}
    if sub is not None:
        values["sub"] = sub
    pairs = [{"Name": name.replace("__", ":"), "Value": value} for name, value in values.items()]
    return {"Username": "Google_17", "Attributes": pairs, "Enabled": enabled, "UserStatus": status}


def get_only_user(desired: Desired) -> dict[str, Any]:
    row = desired.users.astype(object).where(desired.users.notna(), None).iloc[0]
    return {str(column): value for column, value in row.items()}


def test_the_plugins_mapping_is_the_default() -> None:
    assert get_only_user(transform(make_listed_user())) == {
        "sub": "s1",
        "username": "ana@example.org",
        "firstName": "Ana",
        "lastName": "Lima",
        "email": "ana@example.org",
        "timeZone": None,
        "locale": None,
        "active": True,
        "creatable": True,
        "verdict": "mapped",
        "code": None,
        "reason": None,
    }


@pytest.mark.parametrize(
    ("rule", "login"),
    [
        ("email", "ana@example.org"),
        ("sub", "s1"),
        ("cognito_username", "Google_17"),
        ("preferred_username_or_email", "ana"),
        ("custom:login", "a.lima"),
    ],
)
def test_the_login_comes_from_the_attribute_in_the_settings(rule: str, login: str) -> None:
    user = make_listed_user(preferred_username="ana", custom__login="a.lima")
    assert get_only_user(transform(user, settings=Mapping(username=rule)))["username"] == login


@pytest.mark.parametrize("preferred", [{}, {"preferred_username": ""}])
def test_without_a_preferred_username_the_email_is_the_login(preferred: dict[str, Any]) -> None:
    desired = transform(
        make_listed_user(**preferred), settings=Mapping(username="preferred_username_or_email")
    )
    assert get_only_user(desired)["username"] == "ana@example.org"


@pytest.mark.parametrize("given_name", ["", "   "])
def test_a_first_name_is_never_empty_since_joget_would_print_null(given_name: str) -> None:
    assert (
        get_only_user(transform(make_listed_user(given_name=given_name)))["firstName"]
        == "ana@example.org"
    )


def test_columns_that_are_not_mapped_are_null() -> None:
    settings = Mapping(
        username="sub", first_name=None, last_name=None, email=None, time_zone=None, locale=None
    )
    row = get_only_user(transform(make_listed_user(), settings=settings))
    assert [row[column] for column in mapping.MAPPED_COLUMNS] == [None] * 5


@pytest.mark.parametrize(
    "user",
    [
        make_listed_user(),
        make_listed_user(zoneinfo="", locale=""),
        make_listed_user(zoneinfo=" ", locale=" "),
    ],
)
def test_if_the_pool_has_no_time_zone_or_locale_the_default_is_written_or_joget_decides(
    user: dict[str, Any],
) -> None:
    row = get_only_user(transform(user))
    assert (row["timeZone"], row["locale"]) == (None, None)
    settings = Mapping(time_zone_default="Asia/Tokyo", locale_default="ja-JP")
    row = get_only_user(transform(user, settings=settings))
    assert (row["timeZone"], row["locale"]) == ("Asia/Tokyo", "ja_JP")
    row = get_only_user(transform(make_listed_user(zoneinfo="UTC", locale="fr"), settings=settings))
    assert (row["timeZone"], row["locale"]) == ("UTC", "fr")


@pytest.mark.parametrize(
    ("tag", "java"),
    [
        ("en-US", "en_US"),
        ("en_US", "en_US"),
        ("pt", "pt"),
        ("zh-Hant-TW", "zh_TW"),
        ("es-419", "es_419"),
        ("sr-Latn", "sr"),
        ("Klingon, please", "Klingon, please"),
        ("_", "_"),
    ],
)
def test_locales_take_javas_form_and_other_texts_stay(tag: str, java: str) -> None:
    assert get_only_user(transform(make_listed_user(locale=tag)))["locale"] == java


def test_statuses_out_of_scope_are_frozen_and_archived_ones_deactivate_but_are_not_created() -> (
    None
):
    assert get_only_user(transform(make_listed_user(status="UNCONFIRMED")))["verdict"] == "frozen"
    assert (
        get_only_user(transform(make_listed_user(status="SOMETHING_NEW")))["reason"]
        == "status SOMETHING_NEW isn't in scope"
    )
    archived = get_only_user(transform(make_listed_user(status="ARCHIVED")))
    assert (archived["verdict"], archived["active"], archived["creatable"]) == (
        "mapped",
        False,
        False,
    )
    assert get_only_user(transform(make_listed_user(enabled=False)))["active"] is False


def test_a_user_without_a_sub_or_with_an_impossible_one_is_quarantined() -> None:
    assert transform(make_listed_user(None)).quarantine.to_dict("records") == [
        {"entity": "user", "key": "", "code": "no_sub", "reason": "the user has no sub"}
    ]
    assert get_only_user(transform(make_listed_user("s 1")))["verdict"] == "quarantined"


def test_a_user_who_was_listed_twice_counts_once_with_the_newest_values() -> None:
    old, new = make_listed_user(given_name="Old"), make_listed_user(given_name="New")
    old["UserLastModifiedDate"] = pd.Timestamp("2026-01-01", tz="UTC")
    new["UserLastModifiedDate"] = pd.Timestamp("2026-01-02", tz="UTC")
    for users in ((old, new), (new, old)):
        desired = transform(*users)
        assert desired.users["firstName"].tolist() == ["New"]


def test_memberships_are_between_listed_users_and_listed_groups_each_once() -> None:
    desired = transform(
        make_listed_user(),
        groups=("A",),
        memberships=(("s1", "A"), ("s1", "A"), ("newcomer", "A"), ("s1", "gone")),
    )
    assert desired.memberships.to_dict("records") == [{"sub": "s1", "group_name": "A"}]


@pytest.mark.parametrize(
    ("name", "plain", "slug"),
    [
        ("JogetGroup1", "JogetGroup1", "JogetGroup1"),
        ("Ventes/Île", None, "Ventes-Ile"),
        ("a,b;c", None, "a-b-c"),
        ("部長", None, "group"),
        ("--", "--", "group"),
    ],
)
def test_a_groups_id_is_its_name_if_the_console_accepts_that_or_else_a_slug_with_a_hash(
    name: str, plain: str | None, slug: str
) -> None:
    group = transform(groups=(name,)).groups.iloc[0]
    assert (group["plain_id"] if pd.notna(group["plain_id"]) else None) == plain
    assert group["hashed_id"].rpartition("-")[0] == slug


def test_groups_of_federation_are_out_of_scope() -> None:
    groups = transform(
        groups=(f"{POOL_ID}_Google", "A"), scope=Scope(exclude_groups=("B*",))
    ).groups
    assert dict(zip(groups["group_name"], groups["verdict"], strict=True)) == {
        f"{POOL_ID}_Google": "frozen",
        "A": "mapped",
    }


@given(st.text(min_size=1, max_size=128))
def test_every_group_name_gets_an_id_that_the_console_takes_and_that_never_changes(
    name: str,
) -> None:
    name = name.encode("utf-8", "replace").decode()
    group_id = mapping.hash_group_id(name)
    assert mapping.CONSOLE_GROUP_ID.fullmatch(group_id)
    assert len(group_id) <= 100
    assert group_id == mapping.hash_group_id(name)


users = st.lists(
    st.builds(
        make_listed_user,
        st.sampled_from(["a", "b", "c", "d", None]),
        enabled=st.booleans(),
        status=st.sampled_from(["CONFIRMED", "ARCHIVED", "UNCONFIRMED"]),
        email=st.text(st.characters(exclude_categories=["Cs"]), max_size=120),
        given_name=st.text(max_size=300),
        locale=st.text(string.ascii_letters + "-_", max_size=8),
    ),
    max_size=6,
)


@given(users)
def test_every_listed_sub_gets_exactly_one_verdict_and_values_arrive_exactly(
    pool: list[dict[str, Any]],
) -> None:
    desired = transform(*pool).users
    known = desired[desired["sub"].notna()]
    subs = {pair["Value"] for user in pool for pair in user["Attributes"] if pair["Name"] == "sub"}
    assert sorted(known["sub"]) == sorted(subs)
    assert desired["verdict"].isin(["mapped", "frozen", "quarantined"]).all()
    emails = {
        pair["Value"] for user in pool for pair in user["Attributes"] if pair["Name"] == "email"
    }
    for row in desired[desired["verdict"] == "mapped"].to_dict("records"):
        assert row["username"] in emails
        assert 0 < len(row["username"]) <= mapping.LOGIN_LENGTH
        assert 0 < len(row["firstName"]) <= mapping.COLUMN_LENGTH


@given(users, st.randoms())
def test_the_order_of_the_listing_does_not_matter(pool: list[dict[str, Any]], random: Any) -> None:
    each_once = list({str(user["Attributes"]): user for user in pool}.values())
    subs = [
        next((p["Value"] for p in user["Attributes"] if p["Name"] == "sub"), None)
        for user in each_once
    ]
    pool = [user for at, user in enumerate(each_once) if subs[at] not in subs[:at]]
    shuffled = pool.copy()
    random.shuffle(shuffled)
    first, second = (
        transform(*listing).users.sort_values("sub", ignore_index=True)
        for listing in (pool, shuffled)
    )
    assert first.equals(second)
