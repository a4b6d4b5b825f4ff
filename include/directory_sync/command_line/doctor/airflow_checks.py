"""Whether Airflow has the sync's DAGs and the plugin with the tabs."""

from collections.abc import Iterator

from airflow import plugins_manager
from sqlalchemy.exc import SQLAlchemyError

from directory_sync.command_line.doctor.findings import Finding, Status, run_check
from directory_sync.orchestration.plugin import DirectorySyncPages
from directory_sync.pages.airflow_runs import KnownDag, list_known_dags, list_sync_dags
from directory_sync.settings import Sync

DAGS_CHECK = "DAGs"
PLUGIN_CHECK = "plugin"


def check_airflow(sync: Sync) -> Iterator[Finding]:
    """What Airflow's database has of the sync's DAGs, and whether this machine's Airflow loads the
    plugin.
    """
    yield run_check(DAGS_CHECK, lambda: _check_dags(sync))
    yield run_check(PLUGIN_CHECK, _check_plugin)


def _check_dags(sync: Sync) -> Finding:
    dag_ids = [place.dag_id for place in list_sync_dags(sync)]
    try:
        known = {dag.dag_id: dag for dag in list_known_dags(dag_ids)}
    except SQLAlchemyError:
        what = "not known: Airflow's database can't be reached from here, as from most workers"
        to_do = "Run this where Airflow's scheduler or API server runs, or look at Airflow's list."
        return Finding(DAGS_CHECK, Status.UNKNOWN, what, to_do)
    faults: dict[str, list[str]] = {}
    for dag_id in dag_ids:
        if fault := _find_fault(known.get(dag_id)):
            faults.setdefault(fault, []).append(dag_id)
    if faults:
        to_do = (
            "Look at `airflow dags list-import-errors`, at the bundle in AIRFLOW__DAG_PROCESSOR__"
            "DAG_BUNDLE_CONFIG_LIST, and whether the DAG processor runs and has these settings."
        )
        what = "; ".join(f"{fault}: {', '.join(faulty)}" for fault, faulty in faults.items())
        return Finding(DAGS_CHECK, Status.WRONG, what, to_do)
    return _describe_dags(sync, known)


def _find_fault(dag: KnownDag | None) -> str:
    if dag is None:
        return "not in Airflow's database"
    if dag.is_stale:
        return "stale, since no file makes it any more"
    return "with import errors" if dag.has_import_errors else ""


def _describe_dags(sync: Sync, known: dict[str, KnownDag]) -> Finding:
    # Airflow first pauses the sync's DAG (README), so that is no fault. The other two are made
    # unpaused (orchestration/dags.py).
    answering = [dag_id for dag_id in known if dag_id != sync.dag_id and known[dag_id].is_paused]
    if answering:
        what = f"{' and '.join(answering)} paused: a run of a paused DAG waits"
        return Finding(DAGS_CHECK, Status.WARNING, what, "Unpause it: nothing starts it by itself.")
    paused = f"; {sync.dag_id} is paused" if known[sync.dag_id].is_paused else ""
    parsed = max((dag.parsed_at for dag in known.values() if dag.parsed_at), default=None)
    since = f", read on {parsed:%Y-%m-%d %H:%M} UTC" if parsed else ""
    what = f"Airflow has {', '.join(sorted(known))}{since}{paused}"
    return Finding(DAGS_CHECK, Status.OK, what)


def _check_plugin() -> Finding:
    # Airflow's database knows nothing of plugins: each process loads them by itself. So this only
    # says what the process on this machine loads.
    loaded = {info["name"] for info in plugins_manager.get_plugin_info(["name"])}
    errors = plugins_manager.get_import_errors()
    if DirectorySyncPages.name not in loaded:
        sources = [source for source in errors if "directory_sync" in source]
        what = f"can't be imported: {', '.join(sources)}" if sources else "this Airflow has none"
        to_do = (
            "Install the package where Airflow runs, or put plugins/ on its path, and look at "
            "`airflow plugins`. Without it, Airflow shows no tabs; runs work."
        )
        return Finding(PLUGIN_CHECK, Status.WARNING, what, to_do)
    if any(repr(DirectorySyncPages.name) in error for error in errors.values()):
        # Airflow leaves the second one out, and calls that an import error.
        what = "there twice: in the installed package and in a plugins folder"
        to_do = "Take this project's plugins/ off Airflow's path: the package brings the plugin."
        return Finding(PLUGIN_CHECK, Status.WARNING, what, to_do)
    what = "this machine's Airflow loads it; the API server does if it has the same package"
    return Finding(PLUGIN_CHECK, Status.OK, what)
