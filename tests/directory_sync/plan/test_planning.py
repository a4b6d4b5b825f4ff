"""What holds for the plan of any pool, any Joget and any ledger."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
from hypothesis import event, given, settings
from hypothesis import strategies as st

from directory_sync import mapping
from directory_sync.cognito import snapshot
from directory_sync.frames import make_frame_of_rows
from directory_sync.mapping import Desired, hash_group_id
from directory_sync.plan import Current, Evidence, Plan, Removals, current, make_plan
from directory_sync.plan.approval import release_approved
from directory_sync.plan.changes import VALUE_COLUMNS, hash_rows
from directory_sync.plan.unchanged import find_unchanged
from directory_sync.plan.users import PROTECTING_REASONS
from directory_sync.reasons import Reason
from directory_sync.run import Run
from directory_sync.settings import Limits, Policies, Sync
from directory_sync.vocabulary import LEDGER_ACTIONS
from tests.stand_in import POOL_ID

SUBS = [f"sub-{number}" for number in range(6)]
LOGINS = ["ana", "ANA", "bob", "Bob", "eve", "strasse", "straße", "admin"]
GROUP_NAMES = ["Sales", "SALES", "Board", "A/B"]
BEFORE, NOW, AFTER = (datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2, 3))


def key(text: str) -> str:
    """Do what the database's collation does, as far as these logins need it."""
    return text.casefold()


@st.composite
def desired_users(draw: Any) -> list[dict[str, Any]]:
    users = []
    for sub in draw(st.lists(st.sampled_from(SUBS), unique=True)):
        verdict = draw(st.sampled_from(["mapped", "mapped", "mapped", "frozen", "quarantined"]))
        users.append(
            {
                "sub": sub,
                "username": draw(st.sampled_from(LOGINS)),
                "firstName": draw(st.sampled_from(["A", "B"])),
                "lastName": draw(st.sampled_from(["", "x"])),
                "email": "",
                "timeZone": draw(st.sampled_from([None, "Europe/Berlin"])),
                "locale": None,
                "active": draw(st.booleans()),
                "creatable": draw(st.booleans()),
                "verdict": verdict,
                "reason": None if verdict == "mapped" else "a reason",
            }
        )
    return users


@st.composite
def joget_users(draw: Any) -> list[dict[str, Any]]:
    users = []
    for login in draw(st.lists(st.sampled_from(LOGINS), unique_by=key)):
        username = draw(st.sampled_from([login, login, login, "other"]))
        users.append(
            {
                "id": login,
                "username": username,
                "firstName": draw(st.sampled_from(["A", "B", None])),
                "lastName": "",
                "email": draw(st.sampled_from(["", None])),
                "active": draw(st.sampled_from([0, 1, None])),
                "timeZone": "0",
                "locale": None,
                "has_password": draw(st.booleans()),
                "is_admin": draw(st.booleans()),
                "has_role_user": draw(st.booleans()),
                "has_employment": draw(st.booleans()),
                "id_key": key(login),
                "username_key": key(username),
            }
        )
    return users


@st.composite
def worlds(draw: Any) -> tuple[Run, Desired, Current]:
    users, groups = draw(desired_users()), draw(st.lists(st.sampled_from(GROUP_NAMES), unique=True))
    in_joget = draw(joget_users())
    ids = {user["id_key"]: user["id"] for user in in_joget}
    linked = draw(st.dictionaries(st.sampled_from(SUBS), st.sampled_from(LOGINS)))
    by_key = {key(login): (sub, ids.get(key(login), login)) for sub, login in linked.items()}
    here = [bool(draw(st.integers(0, 4))) for _ in by_key]
    links = [
        {
            "sync": "default",
            "user_pool_id": POOL_ID if is_here else "us-east-1_Other",
            "sub": sub if is_here else f"old-{sub}",
            "user_id": user_id,
            "origin": draw(st.sampled_from(["create", "adopt"])),
            "state": draw(st.sampled_from(["active", "deactivated"])),
            "misses": draw(st.integers(0, 2)),
            "changed_at": draw(st.sampled_from([BEFORE, BEFORE, BEFORE, NOW, AFTER])).replace(
                tzinfo=None
            ),
            "linked_at": BEFORE.replace(tzinfo=None),
            "user_key": user_key,
            "is_compared": True,
        }
        for is_here, (user_key, (sub, user_id)) in zip(here, by_key.items(), strict=True)
    ]
    joget_groups = draw(st.lists(st.sampled_from([*GROUP_NAMES[:3], "local"]), unique_by=key))
    group_rows = [
        {
            "id": name,
            "name": draw(st.sampled_from([name, "other"])),
            "organizationId": draw(st.sampled_from(["ORG-001", "ORG-2", None])),
            "id_key": key(name),
        }
        for name in joget_groups
    ]
    group_rows = [{**row, "name_key": key(row["name"])} for row in group_rows]
    linked_names = draw(st.lists(st.sampled_from(GROUP_NAMES), unique_by=key))
    group_links = [
        {
            "sync": "default",
            "user_pool_id": POOL_ID,
            "group_name": name,
            "group_id": next((row["id"] for row in group_rows if row["id_key"] == key(name)), name),
            "misses": draw(st.integers(0, 2)),
            "changed_at": BEFORE.replace(tzinfo=None),
            "group_key": key(name),
        }
        for name in linked_names
    ]
    pairs = st.tuples(st.sampled_from(SUBS), st.sampled_from(GROUP_NAMES))
    named = [
        {"sub": sub, "group_name": name}
        for sub, name in draw(st.lists(pairs, unique=True))
        if sub in {user["sub"] for user in users} and name in groups
    ]
    members = [
        {"user_id": user["id"], "group_id": group["id"]}
        for user in in_joget
        for group in group_rows
        if draw(st.booleans())
    ]
    local = [member for member in members if not draw(st.integers(0, 4))]
    retired = [
        {"user_pool_id": POOL_ID, "sub": draw(st.sampled_from(SUBS)), "user_key": key(login)}
        for login in draw(st.lists(st.sampled_from(LOGINS), unique_by=key, max_size=2))
    ]
    past = [
        {"sub": sub, "user_id": draw(st.sampled_from(LOGINS)), "state": "active", "user_key": None}
        for sub in draw(st.lists(st.sampled_from(SUBS), unique=True, max_size=2))
        if sub not in linked
    ]
    texts = {*LOGINS, *GROUP_NAMES, *map(hash_group_id, GROUP_NAMES)}
    desired = Desired(
        make_frame_of_rows(users, mapping.DESIRED_USERS_SCHEMA),
        make_frame_of_rows(
            [
                {
                    "group_name": name,
                    "plain_id": name if "/" not in name else None,
                    "hashed_id": hash_group_id(name),
                    "listed_twice": draw(st.booleans()),
                    "verdict": draw(st.sampled_from(["mapped", "mapped", "frozen"])),
                }
                for name in sorted(groups)
            ],
            mapping.DESIRED_GROUPS_SCHEMA,
        ),
        make_frame_of_rows(named, mapping.DESIRED_MEMBERSHIPS_SCHEMA),
    )
    now = Current(
        users=make_frame_of_rows(in_joget, current.JOGET_USERS_SCHEMA),
        user_links=make_frame_of_rows(links, current.USER_LINKS_SCHEMA),
        groups=make_frame_of_rows(group_rows, current.JOGET_GROUPS_SCHEMA),
        group_links=make_frame_of_rows(group_links, current.GROUP_LINKS_SCHEMA),
        memberships=make_frame_of_rows(members, current.JOGET_MEMBERSHIPS_SCHEMA),
        local_memberships=make_frame_of_rows(local, current.LOCAL_MEMBERSHIPS_SCHEMA),
        past_links=make_frame_of_rows(past, current.PAST_LINKS_SCHEMA),
        retired=make_frame_of_rows(retired, current.RETIRED_LOGINS_SCHEMA),
        answers=make_frame_of_rows([], current.ANSWERS_SCHEMA),
        employment_ids=make_frame_of_rows(
            [{"user_id": text, "employment_id": f"of {text}"} for text in sorted(texts)],
            current.EMPLOYMENT_IDS_SCHEMA,
        ),
        keys=make_frame_of_rows(
            [{"text": text, "key": key(text)} for text in sorted(texts)], current.TEXT_KEYS_SCHEMA
        ),
        stores_all_of_unicode=True,
        revision=0,
        newest_snapshot_at=None,
        users_in_all=len(in_joget),
        removals=Removals(),
    )
    policies = Policies(
        existing_user=draw(st.sampled_from(["adopt_sso", "adopt", "quarantine"])),
        existing_group=draw(st.sampled_from(["careful", "adopt"])),
        renamed_user=draw(st.sampled_from(["hold", "rename", "keep"])),
        missing_user=draw(st.sampled_from(["deactivate", "delete", "keep"])),
        missing_runs=draw(st.integers(1, 2)),
        missing_group=draw(st.sampled_from(["keep", "delete"])),
    )
    limits = Limits(
        floor=draw(st.sampled_from([0, 1, 1000])),
        created_users=draw(st.sampled_from([None, 1])),
        max_users=draw(st.sampled_from([None, 3])),
    )
    sync = Sync(
        name="default",
        user_pool_id=POOL_ID,
        region="us-east-1",
        organization="ORG-001",
        staging_url="file:///staging",
        policies=policies,
        limits=limits,
    )
    return Run(run_id="manual", sync=sync, dry_run=False), desired, now


ABSENT = make_frame_of_rows(
    [
        *({"entity": "user", "key": sub} for sub in SUBS[:4]),
        *({"entity": "group", "key": name} for name in GROUP_NAMES[:3]),
    ],
    snapshot.ABSENT_SCHEMA,
)
"""Two users and a group that weren't asked for by name."""


def plan_world(world: tuple[Run, Desired, Current], *, complete: bool = True) -> Plan:
    run, desired, now = world
    return make_plan(run, desired, now, Evidence(NOW, complete=complete, absent=ABSENT))


def values(frame: pd.DataFrame, column: str) -> set[str]:
    return set(frame[column].dropna())


@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_input_decides_nothing(
    world: tuple[Run, Desired, Current], random: Any
) -> None:
    run, desired, now = world

    def shuffle_rows(frame: pd.DataFrame) -> pd.DataFrame:
        order = list(range(len(frame)))
        random.shuffle(order)
        return frame.iloc[order].reset_index(drop=True)

    other = Desired(
        shuffle_rows(desired.users), shuffle_rows(desired.groups), shuffle_rows(desired.memberships)
    )
    frames = [name for name, value in vars(now).items() if isinstance(value, pd.DataFrame)]
    later = Current(**{**vars(now), **{name: shuffle_rows(getattr(now, name)) for name in frames}})
    one, two = plan_world(world), plan_world((run, other, later))
    assert one.sha256 == two.sha256
    assert one.directory.equals(two.directory)


def give_keys_of_reading(world: tuple[Run, Desired, Current]) -> tuple[Run, Desired, Current]:
    """Give the world the keys that reading gives: the database isn't asked about ids that no other
    text names.
    """
    run, desired, now = world
    rows = {row["id"]: row for row in now.users.to_dict("records") if row["id"] == row["username"]}
    links = [link for link in now.user_links.to_dict("records") if link["user_pool_id"] == POOL_ID]
    links = [link for link in links if link["state"] == "active" and link["user_id"] in rows]
    quiet = {link["sub"]: link["user_id"] for link in links}
    mine = (user for user in desired.users.to_dict("records") if user["verdict"] != "quarantined")
    asked = {user["username"] for user in mine if quiet.get(user["sub"]) != user["username"]}
    asked |= (values(now.user_links, "user_id") | values(now.users, "id")) - set(quiet.values())
    keys = {key(text) for text in asked} | values(now.retired, "user_key")
    own = {user_id for user_id in quiet.values() if key(user_id) not in keys}

    def give_own_keys(frame: pd.DataFrame, ids: str, column: str) -> pd.DataFrame:
        return frame.assign(**{column: frame[column].mask(frame[ids].isin(own), "=" + frame[ids])})

    users = give_own_keys(give_own_keys(now.users, "id", "id_key"), "id", "username_key")
    linked = give_own_keys(now.user_links, "user_id", "user_key")
    linked["is_compared"] = ~linked["user_id"].isin(own)
    return run, desired, replace(now, users=users, user_links=linked)


@settings(max_examples=4 * settings().max_examples)
@given(worlds(), st.booleans())
def test_unchanged_users_are_planned_as_the_rules_would_decide(
    world: tuple[Run, Desired, Current], may: bool
) -> None:
    run, desired, now = give_keys_of_reading(world)
    evidence = Evidence(NOW, complete=may, absent=ABSENT)
    unchanged = find_unchanged(run, desired.users, now, evidence).current.unchanged_users
    event(f"unchanged users: {min(unchanged, 2)}")
    by_rules, quickly = (
        plan_world(world, complete=may),
        plan_world((run, desired, now), complete=may),
    )
    assert quickly.changes.equals(by_rules.changes)
    assert quickly.directory.equals(by_rules.directory)
    assert (quickly.memberships, quickly.excesses) == (by_rules.memberships, by_rules.excesses)


@given(worlds(), st.booleans())
def test_a_plan_has_only_linked_adopted_and_created_users(
    world: tuple[Run, Desired, Current], may: bool
) -> None:
    _, _, now = world
    plan = plan_world(world, complete=may)
    links = now.user_links[now.user_links["sync"] == "default"]
    users = plan.changes[plan.changes["entity"] == "user"]
    renamed = users[users["action"] == "rename"]
    for_new = users[users["action"].isin(["create", "recreate"])]
    adopted = users[users["action"] == "adopt"]
    ours = values(links, "user_id") | values(renamed, "after_id")
    assert values(plan.changes, "user_id") <= ours | values(for_new, "user_id") | values(
        adopted, "user_id"
    )
    held_names = values(for_new[for_new["hold"] == "new_sub"], "user_id")
    taken_ids = set(map(key, values(for_new, "user_id") - held_names)) & values(now.users, "id_key")
    assert taken_ids == set(), "no user is created over a Joget user"
    found = now.users.set_index("id")
    for user_id in adopted["user_id"]:
        assert not found.loc[user_id, "is_admin"]
        assert key(user_id) not in values(now.user_links, "user_key"), (
            "a Joget user has one link at most"
        )


@given(worlds(), st.booleans())
def test_rows_that_need_a_held_user_are_held_too(
    world: tuple[Run, Desired, Current], may: bool
) -> None:
    plan = plan_world(world, complete=may)
    users = plan.held[plan.held["entity"] == "user"]
    given = values(users[users["action"].isin(["create", "adopt", "recreate", "relink"])], "sub")
    dependent_rows = plan.changes[
        plan.changes["sub"].isin(given) & (plan.changes["action"] != "seen")
    ]
    assert dependent_rows["hold"].notna().all()
    leaving = values(users[users["action"].isin(["deactivate", "delete"])], "sub")
    removed = plan.changes[plan.changes["sub"].isin(leaving) & (plan.changes["action"] == "remove")]
    assert removed["hold"].notna().all()


@given(worlds(), st.booleans())
def test_a_held_update_or_rename_holds_nothing_else(
    world: tuple[Run, Desired, Current], may: bool
) -> None:
    plan = plan_world(world, complete=may)
    users = plan.held[(plan.held["entity"] == "user") & (plan.held["hold"] != "pool_change")]
    kept = values(users[users["action"].isin(["update", "rename"])], "sub")
    kept -= values(users[~users["action"].isin(["update", "rename"])], "sub")
    memberships = plan.held[plan.held["entity"] == "membership"]
    own = {"removed_memberships_percent", "emptied_group_percent", "role_admin", "existing_group"}
    assert set(memberships.loc[memberships["sub"].isin(kept), "hold"]) <= own


@given(worlds())
def test_a_listing_that_did_not_end_removes_only_what_disabled_users_have(
    world: tuple[Run, Desired, Current],
) -> None:
    _, desired, _ = world
    plan = plan_world(world, complete=False)
    removed = plan.changes[
        (plan.changes["entity"] == "membership") & (plan.changes["action"] == "remove")
    ]
    on = desired.users[desired.users["active"]]
    assert values(removed, "sub").isdisjoint(values(on, "sub"))


@given(worlds(), st.booleans())
def test_nothing_of_frozen_quarantined_and_unlisted_users_changes_but_memberships_of_disabled_ones(
    world: tuple[Run, Desired, Current], may: bool
) -> None:
    _, desired, _ = world
    plan = plan_world(world, complete=may)
    users = plan.directory[plan.directory["entity"] == "user"]
    quiet = users[users["outcome"].isin(["missing", "unchanged"])]
    written = plan.changes[~plan.changes["action"].isin(LEDGER_ACTIONS)]
    assert values(quiet, "sub").isdisjoint(
        values(written[written["entity"] != "membership"], "sub")
    )
    silent = users[users["outcome"].isin(["frozen", "quarantined", "unlisted"])]
    told = plan.changes[~plan.changes["action"].isin(["seen", "keep_local"])]
    # Whatever else is said of a disabled user, they lose our memberships (rule 4), unless they are
    # protected.
    disabled = values(desired.users[~desired.users["active"]], "sub") - values(
        users[users["code"].isin(PROTECTING_REASONS)], "sub"
    )
    lost = (
        (told["entity"] == "membership") & (told["action"] == "remove") & told["sub"].isin(disabled)
    )
    assert values(silent, "sub").isdisjoint(values(told[~lost], "sub"))


@given(worlds())
def test_an_incomplete_snapshot_removes_nobody(world: tuple[Run, Desired, Current]) -> None:
    _, desired, _ = world
    plan = plan_world(world, complete=False)
    gone = plan.changes[plan.changes["action"].isin(["deactivate", "delete", "miss", "unlink"])]
    assert values(gone, "sub") <= values(desired.users, "sub")
    assert values(gone, "group_name") == set()


@given(worlds())
def test_a_membership_is_never_removed_unless_two_listings_lack_it(
    world: tuple[Run, Desired, Current],
) -> None:
    _, desired, _ = world
    removed = plan_world(world).changes
    removed = removed[(removed["entity"] == "membership") & (removed["action"] == "remove")]
    # A user whom an administrator deactivated in Joget loses all of ours (rule 4).
    removed = removed[removed["code"] != Reason.USER_OFF_IN_JOGET]
    on, once = (
        desired.users[desired.users["active"]],
        desired.groups[~desired.groups["listed_twice"]],
    )
    of_listed = removed[
        removed["sub"].isin(on["sub"]) & removed["group_name"].isin(desired.groups["group_name"])
    ]
    assert values(of_listed, "group_name").isdisjoint(values(once, "group_name"))


@given(worlds())
def test_approving_nothing_changes_nothing_and_approving_all_holds_nothing_that_can_be_answered(
    world: tuple[Run, Desired, Current],
) -> None:
    plan = plan_world(world)
    assert release_approved(plan, set()).sha256 == plan.sha256
    rest = release_approved(plan, set(hash_rows(plan.to_review)))
    assert rest.directory["outcome"].notna().all()
    assert len(rest.held) <= len(plan.held)
    waiting = set(plan.held.loc[plan.held["hold"] == "occupied_login", "sub"])
    assert values(rest.to_review, "sub") <= waiting | values(plan.safe, "sub")


@given(worlds())
def test_limits_hold_whole_causes(world: tuple[Run, Desired, Current]) -> None:
    plan = plan_world(world)
    safe = plan.safe[plan.safe["entity"] == "user"]
    for cause, actions in {
        "removed_users_percent": ["deactivate", "delete"],
        "created_users": ["create"],
    }.items():
        if cause in plan.excesses:
            assert not safe["action"].isin(actions).any()
    assert set(plan.excesses) >= set(plan.held["hold"]) & {
        "removed_users_percent",
        "created_users",
        "max_users",
    }


@given(worlds(), st.booleans())
def test_every_change_changes_something_once(
    world: tuple[Run, Desired, Current], may: bool
) -> None:
    changes = plan_world(world, complete=may).changes
    kinds = {
        "user": ["user_id"],
        "group": ["group_id"],
        "role": ["user_id"],
        "employment": ["user_id"],
        "membership": ["user_id", "group_id"],
    }
    for entity, columns in kinds.items():
        rows = changes[changes["entity"] == entity]
        assert rows[columns].notna().all(axis=None)
        keys = [
            tuple(map(key, ids))
            for ids in rows.loc[rows["hold"].isna(), columns].itertuples(index=False)
        ]
        assert len(keys) == len(set(keys))
    updates = changes[(changes["entity"] == "user") & (changes["action"] == "update")]
    before = (
        updates.filter(like="before_")
        .set_axis(list(VALUE_COLUMNS), axis=1)
        .astype(object)
        .fillna("NULL")
    )
    after = (
        updates.filter(like="after_")
        .set_axis(list(VALUE_COLUMNS), axis=1)
        .astype(object)
        .fillna("NULL")
    )
    assert (before != after).any(axis=1).all()
    assert pa.Schema.from_pandas(changes).names == list(changes.columns)
