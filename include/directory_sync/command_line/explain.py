"""Explaining a user in the terminal, as the tab "Directory" does on its page."""

from sqlalchemy.exc import SQLAlchemyError

from directory_sync.errors import PermanentError, TransientError, hide_values
from directory_sync.pages import run_history
from directory_sync.pages.airflow_runs import list_newest_runs, list_sync_dags
from directory_sync.pages.user_answer import LONGEST_QUESTION, UserAnswer, UserQuery, answer_query
from directory_sync.settings import Sync, find_sync
from directory_sync.staging import store


def explain_login(sync_name: str, who: str) -> UserAnswer:
    """Why the user with that login, email or sub is as they are, with all values.

    Where nobody is found, older runs are searched too, as far as Airflow knows them. Raises
    PermanentError where the settings hold no such sync, and TransientError where staging or
    Airflow's database can't be reached.
    """
    if len(who) > LONGEST_QUESTION:
        raise PermanentError(
            f"The login, email or sub is longer than {LONGEST_QUESTION} characters. Shorten it: "
            "Cognito has no longer ones."
        )
    with hide_values("explain"):
        sync = find_sync(sync_name)
        # Without its Connection, a path in the object store falls back to anonymous access.
        store.require_access(sync.staging_url)
        try:
            return _answer_from_runs(sync, UserQuery(who=who))
        except SQLAlchemyError as error:
            raise TransientError(
                f"Airflow's database gives no answer ({type(error).__name__}), and it knows which "
                "runs there were. Run this where Airflow's scheduler or API server runs."
            ) from None


def _answer_from_runs(sync: Sync, asked: UserQuery) -> UserAnswer:
    sync_dags = list_sync_dags(sync)
    newest = list_newest_runs([sync_dag.dag_id for sync_dag in sync_dags], run_history.RUNS_SHOWN)
    past = run_history.read_past_runs(sync_dags, newest)
    # A terminal has no permissions of its own: each person who may read staging and Airflow's
    # database from this machine sees values.
    answer = answer_query(sync_dags, past, asked, values=True)
    # The page has a button for this. Each round searches five times as many runs.
    while answer.refusal and answer.further:
        asked = asked.model_copy(update={"back": answer.further})
        answer = answer_query(sync_dags, past, asked, values=True)
    return answer
