"""What happens to each listed user (rules 1 to 4, 6 to 8 and 11 to 13 of docs/design.md)."""

import pandas as pd
import pyarrow as pa

from directory_sync.decisions import Decisions
from directory_sync.frames import (
    BEYOND_BMP_PATTERN,
    TEXT_TYPE,
    conform_to_schema,
    is_true,
    look_up,
    make_null_texts,
)
from directory_sync.mapping import MAPPED_COLUMNS
from directory_sync.plan.changes import (
    USER_COLUMNS,
    USER_VALUE_COLUMNS,
    make_value_fields,
    split_link,
)
from directory_sync.plan.current import Current, Evidence
from directory_sync.plan.matching import is_twin
from directory_sync.reasons import Reason
from directory_sync.run import Run
from directory_sync.settings import Policies
from directory_sync.vocabulary import USER_ACTIONS, Action, Cause, Outcome, State

JOGET_ADMIN_LOGIN = "admin"

MADE_WITHOUT_PASSWORD = (Action.CREATE, Action.RECREATE)
"""Origins of links to Joget users that the sync made. Their password is NULL, unless new_password
is random."""

DECIDED_USERS_SCHEMA = pa.schema(
    [
        ("sub", pa.string()),
        ("joget_id", pa.string()),
        ("occupier_id", pa.string()),
        ("listed", pa.bool_()),
        ("linked", pa.bool_()),
        ("active", pa.bool_()),
        ("joget_active", pa.bool_()),
        ("takes_part", pa.bool_()),
        ("loses_all", pa.bool_()),
        ("is_admin", pa.bool_()),
        ("is_unproven", pa.bool_()),
        ("changed_at", pa.timestamp("us")),
        ("linked_at", pa.timestamp("us")),
        ("outcome", pa.string()),
        ("action", pa.string()),
        ("code", pa.string()),
        ("reason", pa.string()),
        ("hold", pa.string()),
        ("now_has_role_user", pa.bool_()),
        ("now_has_employment", pa.bool_()),
        *make_value_fields("before", USER_VALUE_COLUMNS),
        *make_value_fields("after", USER_VALUE_COLUMNS),
    ]
)
"""A row for each listed and each linked user, once the rules have decided.

joget_id: the Joget user's id now, or the login of a user to be created; null where this run knows
no Joget user. occupier_id: the id of the account that single sign-on made under the login to which
the user is renamed. active: whether the user is enabled in the pool. joget_active: whether the
Joget user is active once the changes are applied. takes_part: whether the memberships that the pool
names are compared. loses_all: whether all our memberships are removed. is_unproven: whether the
user is to be removed although the pool wasn't asked for them by name. hold: a cause that the rules
alone found. before_*, after_*: changes.USER_VALUE_COLUMNS.
"""


def decide_users(
    run: Run, matched: pd.DataFrame, current: Current, evidence: Evidence
) -> pd.DataFrame:
    """Decide every listed user: takes MATCHED_USERS_SCHEMA, and returns DECIDED_USERS_SCHEMA in the
    same order.
    """
    # An heir's link is another user's until a person approves (rule 7).
    users = matched.assign(linked=matched["way"].notna() & ~is_true(matched["way"] == "heir"))
    users = _fill_new_rows(users)
    users["usable"] = _find_faults(users, current).open
    # The first rule that fits counts. Disabling comes before anything that is wrong with the
    # record, so no fault keeps a disabled user in (rule 4).
    decisions = Decisions(users)
    _decide_protected(run, users, current, evidence, decisions)
    _decide_disabled(users, decisions)
    _decide_unusable(users, current, decisions)
    _decide_linked(run, users, current, decisions)
    _decide_new(run, users, current, decisions)
    users = users.join(_find_values(users))
    _decide_changes(users, decisions)
    users = users.drop(columns=["code", "reason"]).join(decisions.frame())
    by_sso = users["code"].isin(
        [Reason.LOGIN_OCCUPIED_BY_SSO, Reason.LOGIN_OCCUPIED_BY_SSO_AND_RETIRED]
    )
    users["occupier_id"] = look_up(
        users["key"].where(is_true(by_sso)), current.users, "id_key", "id"
    )
    return conform_to_schema(_complete_columns(users), DECIDED_USERS_SCHEMA)


def is_excluded(run: Run, users: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    """Whether the settings say that a user (columns key, user_key) is never touched."""
    excluded = find_keys(current, run.sync.scope.exclude_users)
    # The linked login comes first: a login that changed to an excluded one protects nobody.
    return users["user_key"].fillna(users["key"]).isin(excluded)


def is_newer(evidence: Evidence, links: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a newer reading set the link: this older snapshot mustn't overwrite it."""
    # A replay compares an old snapshot on purpose, and writes nothing.
    if evidence.compares:
        return pd.Series(False, index=links.index)
    return is_true(links["changed_at"] > evidence.at - evidence.lag)


def is_replaced(users: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    """Whether a linked user's Joget user was deleted, and another account has the name now."""
    # Either that account has the id in other letters, or reading found that the sync didn't make it
    # (current.JOGET_USERS_SCHEMA, is_replaced).
    in_joget = pd.concat([current.users["id_key"], current.users["username_key"]]).dropna()
    other_letters = users["now_id"].isna() & users["user_key"].isin(in_joget)
    return other_letters | is_true(users["now_is_replaced"])


def are_values_different(users: pd.DataFrame) -> "pd.Series[bool]":
    """Whether any of dir_user's columns differs by bytes; NULL differs from ''."""
    found = pd.Series(False, index=users.index)
    for column in USER_COLUMNS:
        before, after = users[f"before_{column}"], users[f"after_{column}"]
        same = is_true(before == after) | (before.isna() & after.isna())
        found |= ~same
    return found


def _fill_new_rows(users: pd.DataFrame) -> pd.DataFrame:
    """The users, where Joget has no row yet, with texts in the unmapped columns that need them."""
    makes = users["now_id"].isna()
    # Joget's screens print "null" for a NULL name, and Joget loses mail to a NULL email with a
    # NullPointerException.
    texts = {"firstName": users["username"], "lastName": "", "email": ""}
    filled = {
        column: users[column].mask(makes & users[column].isna(), text)
        for column, text in texts.items()
    }
    return users.assign(**filled)


def _find_faults(users: pd.DataFrame, current: Current) -> Decisions:
    """Find why a user's values can't be written: faults that mapping found, and faults that depend
    on the database's charset, column lengths and collation.
    """
    faults = Decisions(users)
    for outcome in (Outcome.FROZEN, Outcome.QUARANTINED):
        faults.decide_as_mapped(users["verdict"] == outcome, outcome, users)
    for column in ("username", *MAPPED_COLUMNS):
        # In DX 7's utf8 tables, an emoji in any column is error 1366.
        if not current.stores_all_of_unicode:
            beyond = users[column].str.contains(BEYOND_BMP_PATTERN, na=False)
            faults.decide(beyond, Outcome.QUARANTINED, Reason.NOT_STORABLE, detail=column)
        # Mapping knows only the lengths that Joget gives its columns; this installation's count.
        length = current.column_lengths.get(column)
        if length is not None:
            too_long = users[column].str.len() > length
            detail = f"{column} is longer than {length}"
            faults.decide(too_long, Outcome.QUARANTINED, Reason.VALUE_TOO_LONG, detail=detail)
    faults.decide(users["key"].isna(), Outcome.QUARANTINED, Reason.LOGIN_IGNORED)
    return faults


def _decide_protected(
    run: Run, users: pd.DataFrame, current: Current, evidence: Evidence, decisions: Decisions
) -> None:
    """Decide the users that nothing may change, even if they are disabled in the pool."""
    decisions.decide(is_excluded(run, users, current), Outcome.FROZEN, Reason.EXCLUDED)
    if run.is_for_some:
        decisions.decide(~users["sub"].isin(run.users), Outcome.FROZEN, Reason.NOT_ASKED)
    newer = users["linked"] & is_newer(evidence, users)
    ended = current.past_links.loc[is_newer(evidence, current.past_links), "sub"]
    newer |= ~users["linked"] & users["sub"].isin(ended)
    decisions.decide(newer, Outcome.FROZEN, Reason.NEWER_READING)
    if run.is_live and not run.sync.events.leavers_at_once:
        leaves = users["linked"] & ~users["active"]
        decisions.decide(leaves, Outcome.FROZEN, Reason.LEFT_TO_THE_NEXT_RUN)
    replaced = users["linked"] & is_replaced(users, current)
    decisions.decide(replaced, Outcome.QUARANTINED, Reason.REPLACED_IN_JOGET)


def _decide_disabled(users: pd.DataFrame, decisions: Decisions) -> None:
    """Rule 4: a disabled user loses access, whatever mapping and scope say of the record."""
    off = users["linked"] & ~users["active"]
    # If the ledger has the link as deactivated and Joget has the user as active, an administrator
    # activated the user again, who stays active.
    ours_is_on = (users["state"] == State.ACTIVE) & is_true(users["now_active"] == 1)
    decisions.decide(off & ours_is_on, Outcome.DEACTIVATED, Reason.DISABLED)


def _decide_unusable(users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    faults = _find_faults(users, current)
    found = faults.frame()
    for outcome in (Outcome.FROZEN, Outcome.QUARANTINED):
        decisions.decide_as_mapped(faults.outcome_is(outcome), outcome, found)


def find_keys(current: Current, logins: tuple[str, ...]) -> "pd.Series[str]":
    """The database's keys of logins that the settings name."""
    return current.keys.loc[current.keys["text"].isin(logins), "key"].dropna()


def _decide_linked(run: Run, users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    linked = users["linked"]
    gone = linked & users["now_id"].isna()
    decisions.decide(gone, Outcome.RECREATED, Reason.DELETED_IN_JOGET)
    other_username = linked & ~is_true(users["now_username_key"] == users["user_key"])
    decisions.decide(other_username, Outcome.QUARANTINED, Reason.USERNAME_CHANGED_IN_JOGET)
    if run.sync.policies.renamed_user != "keep":
        _decide_renamed(run, users, current, decisions)


def _decide_renamed(run: Run, users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    """Rule 6: rename a user only to a free key that no other rename wants."""
    # The changed login of a disabled user waits until they are enabled again (rule 4).
    changed = users["linked"] & users["active"] & (users["key"] != users["user_key"])
    renamed = changed & decisions.open
    links, rows = current.user_links["user_key"].dropna(), current.users
    # Only an account with nothing beyond what single sign-on makes may be deleted for a rename.
    unused = is_true(rows["is_used"] == False) & ~rows["id_key"].isin(links)  # noqa: E712 - null is unknown
    unused &= is_true(rows["id"] == rows["username"]) & ~is_true(rows["has_password"])
    unused &= ~is_true(rows["is_admin"])
    in_joget = pd.concat([rows["id_key"], rows["username_key"]]).dropna()
    in_the_way = pd.concat([rows.loc[~unused, "id_key"], rows.loc[~unused, "username_key"]])
    wanted = users["key"].where(changed & decisions.contends)
    never = users["key"].isin(pd.concat([in_the_way.dropna(), links]))
    never |= wanted.duplicated(keep=False) | (users["username"].str.lower() == JOGET_ADMIN_LOGIN)
    # Under an excluded login, the user would be protected from then on.
    never |= users["key"].isin(find_keys(current, run.sync.scope.exclude_users))
    # Before the other causes, since no answer releases this one.
    decisions.decide(renamed & never, Outcome.RENAMED, Reason.LOGIN_OCCUPIED, Cause.OCCUPIED_LOGIN)
    by_sso, retired = renamed & users["key"].isin(in_joget), renamed & _is_retired(users, current)
    both = Reason.LOGIN_OCCUPIED_BY_SSO_AND_RETIRED
    decisions.decide(by_sso & retired, Outcome.RENAMED, both, Cause.RETIRED_LOGIN)
    decisions.decide(by_sso, Outcome.RENAMED, Reason.LOGIN_OCCUPIED_BY_SSO, Cause.OCCUPIED_BY_SSO)
    decisions.decide(retired, Outcome.RENAMED, Reason.LOGIN_RETIRED, Cause.RETIRED_LOGIN)
    hold = Cause.RENAMED_USER if run.sync.policies.renamed_user == "hold" else None
    decisions.decide(renamed, Outcome.RENAMED, Reason.LOGIN_CHANGED, hold)


def _is_retired(users: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    """Whether another sub had the login before."""
    if current.retired.empty:
        return pd.Series(False, index=users.index)
    # Joget keeps its workflow history by login, so another sub would inherit it. The sub that had
    # the login may get it back.
    others = users[["sub", "key"]].reset_index()
    others = others.merge(current.retired, left_on="key", right_on="user_key")
    others = others[others["sub_x"] != others["sub_y"]]
    return pd.Series(users.index.isin(others["index"]), index=users.index)


def _decide_new(run: Run, users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    new = ~users["linked"]
    decisions.decide(new & ~users["creatable"], Outcome.FROZEN, Reason.NOT_CREATABLE)
    is_admin = users["username"].str.lower() == JOGET_ADMIN_LOGIN
    decisions.decide(new & is_admin, Outcome.QUARANTINED, Reason.ADMIN_ACCOUNT)
    _decide_taken(run, users, current, decisions)
    # A record that is out of scope or faulty makes nobody a twin: it won't get the login.
    twins = is_twin(users["key"].where(new & decisions.contends), users["active"])
    decisions.decide(new & twins, Outcome.QUARANTINED, Reason.TWIN)
    _decide_heirs(users, decisions)
    _decide_adoption(run.sync.policies, users, current, decisions)
    unknown = new & (users["matches"] == 0)
    retired = unknown & _is_retired(users, current)
    decisions.decide(retired, Outcome.CREATED, Reason.NEW_WITH_RETIRED_LOGIN, Cause.RETIRED_LOGIN)
    decisions.decide(unknown, Outcome.CREATED, Reason.NEW)


def _decide_taken(run: Run, users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    """Rule 7: quarantine a newcomer if a linked user has their login or is about to get it."""
    new = ~users["linked"]
    links = current.user_links
    foreign = links.loc[links["sync"] != run.sync.name, "user_key"].dropna()
    decisions.decide(
        new & users["key"].isin(foreign), Outcome.QUARANTINED, Reason.LINKED_BY_OTHER_SYNC
    )
    holder = look_up(users["key"], links[links["sync"] == run.sync.name], "user_key", "sub")
    belongs_to_other = new & holder.notna() & ~is_true(users["way"] == "heir")
    decisions.decide(
        belongs_to_other, Outcome.QUARANTINED, Reason.LOGIN_OF_LINKED_USER, detail=holder.fillna("")
    )
    moves = users["linked"] & (users["key"] != users["user_key"])
    # Held renames count too: a person may still approve them.
    moves &= decisions.contends | decisions.outcome_is(Outcome.RENAMED)
    wanted = users["key"].where(moves).dropna()
    decisions.decide(
        new & users["key"].isin(wanted), Outcome.QUARANTINED, Reason.LOGIN_WANTED_BY_LINKED_USER
    )


def _decide_heirs(users: pd.DataFrame, decisions: Decisions) -> None:
    """Rule 7: a newcomer inherits an account only if a person approves it."""
    heir = is_true(users["way"] == "heir")
    holder = split_link(users["before_link"])[1].fillna("")
    gone = heir & users["now_id"].isna()
    decisions.decide(gone, Outcome.RECREATED, Reason.HEIR, Cause.NEW_SUB, detail=holder)
    decisions.decide(heir, Outcome.UPDATED, Reason.HEIR, Cause.NEW_SUB, detail=holder)


def _decide_adoption(
    policies: Policies, users: pd.DataFrame, current: Current, decisions: Decisions
) -> None:
    found = ~users["linked"] & users["now_id"].notna()
    refusals = [
        (users["matches"] > 1, Reason.SEVERAL_JOGET_USERS),
        # Joget deletes users by id-as-username: for such an account, it would delete nothing.
        (users["now_id"] != users["now_username"], Reason.ID_IS_NOT_USERNAME),
        (users["now_is_admin"], Reason.HOLDS_ROLE_ADMIN),
    ]
    # Only single sign-on makes accounts without a password.
    if policies.existing_user == "adopt_sso":
        refusals.append((users["now_has_password"], Reason.HAS_PASSWORD))
    if policies.existing_user == "quarantine":
        refusals.append((found, Reason.EXISTS_IN_JOGET))
    for refused, reason in refusals:
        decisions.decide(found & refused, Outcome.QUARANTINED, reason)
    retired = found & _is_retired(users, current)
    decisions.decide(retired, Outcome.ADOPTED, Reason.FOUND_WITH_RETIRED_LOGIN, Cause.RETIRED_LOGIN)
    origin = Reason.FOUND_FROM_SSO if policies.existing_user == "adopt_sso" else Reason.FOUND
    decisions.decide(found, Outcome.ADOPTED, origin)


def _find_values(users: pd.DataFrame) -> pd.DataFrame:
    """Give before_*, Joget's values now, and after_*, the pool's values in the mapped columns."""
    values = {"before_id": users["now_id"], "after_id": users["now_id"]}
    for column in USER_COLUMNS:
        values[f"before_{column}"] = users[f"now_{column}"]
        if column != "active":
            # Of a record that can't be mapped, only `active` is used. A null leaves Joget's value.
            wanted = users[column].where(users["usable"])
            values[f"after_{column}"] = wanted.fillna(users[f"now_{column}"])
    exists = users["now_id"].notna()
    on, off = users["active"], ~users["active"]
    # The ledger's state tells the sync's own deactivations from an administrator's, which stay.
    ours = users["state"].fillna(State.ACTIVE) == State.DEACTIVATED
    turned_off = exists & off & ~ours & is_true(users["now_active"] == 1)
    active = users["now_active"].mask(turned_off, 0).mask(exists & on & ours, 1)
    values["after_active"] = active.mask(~exists, on.astype("int64[pyarrow]"))
    state = users["state"].fillna(State.ACTIVE)
    state = state.mask(turned_off, State.DEACTIVATED).mask(on & ours, State.ACTIVE)
    # The Joget plugin imports disabled users as inactive. Joget and the pool agree about such a
    # user, so the pool may let the user in again later.
    found_off = exists & off & users["before_link"].isna() & ~is_true(users["now_active"] == 1)
    values["after_state"] = state.mask((~exists & off) | found_off, State.DEACTIVATED)
    known = users["before_link"].notna()
    values["before_state"] = users["state"].where(known)
    values["before_misses"] = users["misses"].where(known)
    values["after_misses"] = pd.Series(0, index=users.index, dtype="int64[pyarrow]")
    return pd.DataFrame(values)


def _decide_changes(users: pd.DataFrame, decisions: Decisions) -> None:
    """Rules 3 and 4 for linked users: who is let in again, by the link's state in the ledger, and
    every column that differs by bytes.
    """
    before, after = users["state"], users["after_state"]
    decisions.decide(users["way"] == "rebuilt", Outcome.ADOPTED, Reason.LINK_REBUILT)
    on = (before == State.DEACTIVATED) & (after == State.ACTIVE)
    decisions.decide(on, Outcome.REACTIVATED, Reason.ENABLED_AGAIN)
    decisions.decide(are_values_different(users), Outcome.UPDATED, Reason.CHANGED)
    relinked = users["way"].isin(["history", "login"])
    decisions.decide(relinked, Outcome.UPDATED, Reason.POOL_CHANGED)
    off_in_joget = ~is_true(users["now_active"] == 1) & (after == State.ACTIVE)
    decisions.decide(off_in_joget, Outcome.UNCHANGED, Reason.DEACTIVATED_IN_JOGET)
    decisions.decide(decisions.open, Outcome.UNCHANGED)


def change_login_only(renamed: pd.DataFrame) -> pd.DataFrame:
    """The renamed users (DECIDED_USERS_SCHEMA) as if Joget had every value of the pool's already,
    except the login.
    """
    values = {
        f"before_{name}": renamed[f"after_{name}"] for name in USER_VALUE_COLUMNS if name != "id"
    }
    return renamed.assign(**values)


def keep_login(renamed: pd.DataFrame) -> pd.DataFrame:
    """The renamed users (DECIDED_USERS_SCHEMA) with every change except that of the login."""
    on = (renamed["before_state"] == State.DEACTIVATED) & (renamed["after_state"] == State.ACTIVE)
    decisions = Decisions(renamed)
    decisions.decide(on, Outcome.REACTIVATED, Reason.ENABLED_AGAIN)
    decisions.decide(are_values_different(renamed), Outcome.UPDATED, Reason.CHANGED)
    decisions.decide(
        is_true(renamed["before_link"] != renamed["after_link"]),
        Outcome.UPDATED,
        Reason.POOL_CHANGED,
    )
    decisions.decide(decisions.open, Outcome.UNCHANGED)
    users = renamed.drop(columns=["outcome", "code", "reason", "hold"]).join(decisions.frame())
    users = users.assign(after_id=users["before_id"], occupier_id=make_null_texts(users.index))
    return conform_to_schema(users.assign(action=_choose_actions(users)), DECIDED_USERS_SCHEMA)


PROTECTING_REASONS = (
    Reason.EXCLUDED,
    Reason.NOT_ASKED,
    Reason.LEFT_TO_THE_NEXT_RUN,
    Reason.NEWER_READING,
    Reason.REPLACED_IN_JOGET,
)
"""Reasons to change nothing of a user, not even the memberships of a disabled user."""


def _complete_columns(users: pd.DataFrame) -> pd.DataFrame:
    """Derive actions, ids, and what happens to memberships, from the outcomes."""
    makes = users["outcome"].isin([Outcome.CREATED, Outcome.RENAMED])
    users["after_id"] = users["after_id"].mask(makes, users["username"])
    # A user who was deleted in Joget comes back under the same id, even if the login changed.
    again = users["outcome"] == Outcome.RECREATED
    users["after_id"] = users["after_id"].mask(again, users["linked_id"])
    users["action"] = _choose_actions(users)
    known = users["linked"] | users["action"].notna()
    created = users["username"].where(users["outcome"] == Outcome.CREATED)
    joget_id = users["linked_id"].fillna(users["found_id"]).where(known)
    left_alone = users["outcome"].isin([Outcome.FROZEN, Outcome.QUARANTINED])
    # A disabled user loses our memberships even if the record is out of scope or quarantined.
    off = users["linked"] & ~users["active"] & ~users["code"].isin(PROTECTING_REASONS)
    on_after = is_true(users["after_active"] == 1)
    # Joget gives tasks to inactive members too, so they lose our memberships as well.
    off_in_joget = users["now_id"].notna() & ~on_after
    return users.assign(
        listed=True,
        joget_id=created.fillna(joget_id),
        joget_active=on_after & (users["action"].notna() | (users["outcome"] == Outcome.UNCHANGED)),
        takes_part=~left_alone,
        loses_all=off | (~left_alone & (~users["active"] | off_in_joget)),
        is_admin=users["linked"] & is_true(users["now_is_admin"]),
        is_unproven=False,
    )


def _choose_actions(users: pd.DataFrame) -> "pd.Series[str]":
    action = users["outcome"].map(USER_ACTIONS).astype(TEXT_TYPE)
    unchanged = users["linked"] & (users["outcome"] == Outcome.UNCHANGED)
    action = action.mask(is_true(unchanged & (users["before_misses"] > 0)), Action.SEEN)
    moved = (users["outcome"] == Outcome.UPDATED) & is_true(
        users["before_link"] != users["after_link"]
    )
    return action.mask(moved, Action.RELINK)
