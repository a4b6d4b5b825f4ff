"""The answer to "Explain a user", the same on the page and in the terminal."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from directory_sync.pages import run_history
from directory_sync.pages.airflow_runs import SyncDag, list_changing_runs
from directory_sync.pages.labels import count_nouns
from directory_sync.pages.run_history import PastRun
from directory_sync.pages.user_explanation import Explanation, explain_user
from directory_sync.pages.user_search import SearchResult, search_users

RUNS_LOOKED_AT, MOST_RUNS = 100, 12_500
"""How many runs with changes are searched for a user, at first and at most, besides the last runs.
"""


LONGEST_QUESTION = 200
"""Characters of a login, email or sub that is asked about."""


class UserQuery(BaseModel):
    """The user that a reader asks about, as the form of "Explain a user" sends it."""

    model_config = ConfigDict(frozen=True)

    who: Annotated[str, Field(max_length=LONGEST_QUESTION)] = ""
    """A login, an email or a sub."""
    sub: Annotated[str, Field(max_length=LONGEST_QUESTION)] = ""
    """The user that the reader chose, where several were found."""
    back: Annotated[int, Field(ge=1, le=MOST_RUNS)] = RUNS_LOOKED_AT
    """How many runs with changes to search."""


@dataclass(frozen=True)
class UserAnswer:
    """The users that were found, and the explanation if only one was."""

    search_result: SearchResult | None
    """None where nothing could be searched."""
    explained: Explanation | None
    searched_runs: tuple[PastRun, ...]
    """The runs that were searched, the newest first."""
    further: int | None
    """How many runs with changes to search next; None where there are no more."""
    refusal: str
    """Why nobody is explained, as a sentence; empty where somebody is, or where several fit."""

    @property
    def searched(self) -> str:
        """How many runs were searched, and how far back."""
        count = count_nouns(len(self.searched_runs), "run")
        return f"{count} searched, back to {self.searched_runs[-1].ended:%Y-%m-%d %H:%M} UTC"


def answer_query(
    sync_dags: list[SyncDag], past: list[PastRun], asked: UserQuery, *, values: bool
) -> UserAnswer:
    """Search these runs, and older runs of these DAGs that changed something, for a user.

    values: whether the reader may see values; without that, only subs are searched.
    """
    if run_history.find_newest_full_run(past) is None:
        return UserAnswer(None, None, (), None, NOTHING_TO_SEARCH)
    older = list_changing_runs([sync_dag.dag_id for sync_dag in sync_dags], asked.back)
    known_runs = {(past_run.run.dag_id, past_run.run.run_id) for past_run in past}
    searched_runs = past + run_history.read_past_runs(
        sync_dags, [run for run in older if (run.dag_id, run.run_id) not in known_runs]
    )
    searched_runs.sort(key=lambda past_run: past_run.ended, reverse=True)
    search_result = (
        SearchResult((asked.sub,))
        if asked.sub
        else search_users(asked.who, searched_runs, values=values)
    )
    explained = (
        explain_user(search_result.subs[0], searched_runs, values=values)
        if len(search_result.subs) == 1
        else None
    )
    # A sub that is chosen on the page comes from a form, so it may be any text.
    if explained and not explained.is_known:
        explained = None
    is_open = explained is not None or len(search_result.subs) > 1
    return UserAnswer(
        search_result,
        explained,
        tuple(searched_runs),
        # As many runs came back as were asked for, so there may be more.
        min(asked.back * 5, MOST_RUNS) if len(older) == asked.back < MOST_RUNS else None,
        "" if is_open else _describe_absence(search_result, values=values),
    )


NOTHING_TO_SEARCH = (
    "No run of this sync for everybody has left its files yet, so no user can be searched for. Run "
    "it once."
)


def _describe_absence(search_result: SearchResult, *, values: bool) -> str:
    if search_result.without_sub:
        return (
            "The pool lists somebody by that name without a sub, so there is nothing to explain: "
            "see who is in quarantine."
        )
    if values:
        return (
            "Nobody with exactly that login, email or sub is in the newest snapshot, among the "
            "users that this sync linked in Joget, or among those that the last runs changed. Is "
            "the spelling right, and is it the right pool?"
        )
    return (
        "Nobody with exactly that sub is known. Only people who may answer this sync's reviews can "
        "search by login or email."
    )
