"""The pages as people see them: in Chromium, from a running Airflow with its scheduler and
roles.
"""

import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Frame, FrameLocator, Page, expect, sync_playwright

from demo import airflow
from demo.processes import free_port
from tests.company import Company, people
from tests.conftest import ROOT, JogetDatabase, new_company
from tests.directory_sync.orchestration.api import PATIENCE, Api, answer, quote_run_id, wait
from tests.stand_in import user

SYNC, REVIEW = "cognito_to_joget", "cognito_to_joget_review"
SCREENSHOTS = ROOT / "build" / "screenshots"
WIDE = {"width": 1280, "height": 900}
ROLES = {"olga": "admin", "omar": "op", "vera": "viewer"}
ANA = "ana.almeida@example.org"


@dataclass
class Office:
    """A company of 300 with a sync in an Airflow of its own, and people with several roles."""

    company: Company
    port: int
    variables: dict[str, str]

    def api(self, reader: str = "olga") -> Api:
        return Api(self.port, reader)

    def get(self, path: str, reader: str | None, method: str = "GET") -> tuple[int, str]:
        """Request a page below the plugin's address; returns its status and text."""
        return answer(self.port, f"directory-sync/{path}", reader, method)


@pytest.fixture(scope="module")
def office(
    new_joget: Callable[[str], JogetDatabase], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Office]:
    folder, port = tmp_path_factory.mktemp("pages"), free_port()
    joget = new_joget("utf8mb4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_JOGET_MYSQL", joget.server.uri(joget.name))
        with new_company(joget, folder, patch) as company:
            company.configure(
                schedule=None, requests_per_second=2000.0, scope={"exclude_groups": ["Secret*"]}
            )
            ana = user(ANA, given_name="Ana", family_name="Almeida")
            company.pool.users = [ana, *people(299)]
            company.pool.members = {
                "Sales": [ana, *company.pool.users[100:120]],
                "Secret plans": [ana],
            }
            home = folder / "airflow"
            home.mkdir()
            variables = airflow.environment(
                home,
                settings=company.settings_path,
                joget_uri=joget.server.uri(joget.name),
                endpoint=company.cognito.endpoint,
            ) | {"AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1"}
            with airflow.standalone(variables, port, folder / "airflow.log", roles=ROLES):
                yield Office(company, port, variables)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium")
    assert found, "Chromium isn't installed; TESTS=1 make setup does that"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_airflow(office: Office, chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open Airflow in a browser session of its own, signed in. The test fails if a request leaves
    the machine.
    """
    contexts = []
    elsewhere: list[str] = []

    def check_host(request: Any) -> None:
        parts = urllib.parse.urlsplit(request.url)
        if parts.scheme in ("http", "https") and parts.hostname != "127.0.0.1":
            elsewhere.append(request.url)

    def open_as(reader: str, **context: Any) -> Page:
        opened = chromium.new_context(base_url=f"http://127.0.0.1:{office.port}", **context)
        contexts.append(opened)
        opened.set_default_timeout(PATIENCE * 1000)
        page = opened.new_page()
        page.goto("/")
        page.get_by_label("Username").fill(reader)
        page.get_by_label("Password").fill(reader)
        page.get_by_role("button", name="Sign in").click()
        expect(page).not_to_have_url(re.compile("login"))
        page.on("request", check_host)
        return page

    yield open_as
    for opened in contexts:
        opened.close()
    assert elsewhere == []


def find_tab(page: Page) -> FrameLocator:
    """Find the frame with the tab's page."""
    return page.frame_locator("iframe")


def keep_screenshot(page: Page, name: str) -> None:
    """Keep a screenshot as build output."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def list_accessibility_faults(shown: Frame) -> list[str]:
    """List the accessibility faults that axe finds."""
    found = Axe().run(shown).response["violations"]
    return [
        f"{one['id']}: {node['html']} {node['failureSummary']}"
        for one in found
        for node in one["nodes"]
    ]


def open_run(page: Page, dag_id: str, run_id: str) -> FrameLocator:
    page.goto(f"/dags/{dag_id}/runs/{quote_run_id(run_id)}")
    page.get_by_role("link", name="Directory changes").click()
    return find_tab(page)


def test_from_the_trigger_form_to_the_changes_of_the_run(
    office: Office, open_airflow: Callable[..., Page]
) -> None:
    page = open_airflow("olga", viewport=WIDE)
    page.goto(f"/dags/{SYNC}")
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Trigger").click()
    runs = wait(lambda: office.api().runs(SYNC), "the run")
    (run_id,) = runs
    assert office.api().await_end_of_run(SYNC, run_id) == "success"
    tab = open_run(page, SYNC, run_id)
    expect(tab.get_by_role("heading", level=1)).to_contain_text("300 users created")
    expect(tab.get_by_text("The snapshot was proven complete")).to_be_visible()
    assert list_accessibility_faults(page.frames[1]) == []
    tab.get_by_label("Search").fill("ALMEIDA")
    tab.get_by_role("button", name="Show").click()
    expect(tab.get_by_role("status")).to_contain_text("4 of 922 changes")
    expect(tab.get_by_text(ANA).first).to_be_visible()
    assert "ALMEIDA" not in page.frames[1].url
    page.frames[1].wait_for_load_state()  # until then Chromium may fill the form in again
    tab.get_by_label("Search").fill("")
    tab.get_by_label("Entity").select_option("membership")
    tab.get_by_role("button", name="Show").click()
    expect(tab.get_by_role("status")).to_contain_text("21 of 922 changes")
    tab.get_by_role("button", name="Who").press("Enter")
    expect(tab.get_by_role("columnheader", name="Who")).to_have_attribute("aria-sort", "ascending")
    with page.expect_download() as download:
        tab.get_by_role("button", name="Download CSV").click()
    assert download.value.path().read_text(encoding="utf-8-sig").count("\n") == 22


def test_why_ana_cannot_see_the_app_is_answered_in_light_and_dark(
    office: Office, open_airflow: Callable[..., Page]
) -> None:
    office.company.joget.execute("UPDATE dir_user SET active = 0 WHERE id = %s", (ANA,))
    office.api().run(SYNC)
    page = open_airflow("olga", viewport=WIDE, color_scheme="light")
    page.goto(f"/dags/{SYNC}/plugin/directory")
    tab = find_tab(page)
    tab.get_by_label("Login, email or sub").fill(ANA.upper())
    page.keyboard.press("Enter")
    expect(tab.get_by_text("an administrator deactivated the user in Joget").first).to_be_visible()
    expect(tab.get_by_role("article", name="Explanation")).to_contain_text("to Joget user " + ANA)
    assert ANA not in page.frames[1].url.lower()
    expect(tab.locator("canvas").first).to_have_attribute("aria-label", re.compile("300 users"))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        expect(tab.locator("html")).to_have_attribute("data-theme", scheme)
        assert list_accessibility_faults(page.frames[1]) == []
        tab.get_by_role("heading", name="Explain a user").scroll_into_view_if_needed()
        keep_screenshot(page, f"explained-{scheme}")
        tab.get_by_role("heading", name="The last runs").scroll_into_view_if_needed()
        keep_screenshot(page, f"directory-{scheme}")


def test_at_700_pixels_nothing_is_cut_off(
    office: Office, open_airflow: Callable[..., Page]
) -> None:
    """Airflow's own pages of a DAG don't get narrower than 1,280 pixels, so ours is opened without
    them.
    """
    run_id = next(iter(office.api().runs(SYNC)))
    page = open_airflow("olga", viewport={"width": 700, "height": 900}, color_scheme="dark")
    for name, path in (
        ("directory", f"dags/{SYNC}"),
        ("run", f"dags/{SYNC}/runs/{quote_run_id(run_id)}"),
    ):
        page.goto(f"/directory-sync/{path}")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        wide, inner = (
            page.evaluate(f"document.documentElement.{side}")
            for side in ("scrollWidth", "clientWidth")
        )
        assert wide <= inner, "only tables scroll sideways, within themselves"
        assert list_accessibility_faults(page.main_frame) == []
        keep_screenshot(page, f"{name}-narrow")


def test_a_held_run_is_found_approved_on_airflows_page_and_shown_as_applied(
    office: Office, open_airflow: Callable[..., Page]
) -> None:
    everybody = office.company.pool.users
    office.company.pool.users = everybody[:-40]
    office.api().run(SYNC)
    office.company.pool.members["Sales"] = office.company.pool.members["Sales"][:-1]
    run_id = office.api().run(SYNC)
    (review,) = wait(lambda: office.api().runs(REVIEW), "the review")
    office.api().await_question(REVIEW, review, "review_held")
    page = open_airflow("olga", viewport=WIDE)
    tab = open_run(page, SYNC, run_id)
    expect(tab.get_by_role("heading", level=1)).to_contain_text("would be deactivated or deleted")
    expect(tab.get_by_role("heading", level=1)).to_contain_text(
        "since they are missing (limit 5 %)"
    )
    keep_screenshot(page, "run")
    tab.get_by_label("held only").check()
    tab.get_by_role("button", name="Show").click()
    expect(tab.locator("tr.waits").first).to_be_visible()
    keep_screenshot(page, "held")
    page.goto(f"/dags/{SYNC}/plugin/directory")
    find_tab(page).get_by_role("link", name="answer it on Airflow's page").click()
    expect(page).to_have_url(re.compile(f"/dags/{REVIEW}/runs/.*required_actions"))
    page.get_by_role("button", name="Approve").click()
    assert office.api().await_end_of_run(REVIEW, review) == "success"
    tab = open_run(page, REVIEW, review)
    expect(tab.get_by_text("Approved by olga")).to_be_visible()
    expect(tab.get_by_role("heading", level=1)).to_contain_text("40 users deactivated")
    assert len(office.company.active()) == 259


def list_routes(office: Office) -> list[tuple[str, str]]:
    run_id = quote_run_id(next(iter(office.api().runs(SYNC))))
    run = f"dags/{SYNC}/runs/{run_id}"
    found = [("GET", run), ("POST", run), ("POST", f"{run}/changes.csv"), ("GET", f"dags/{SYNC}")]
    found += [
        ("POST", f"dags/{SYNC}"),
        ("GET", "static/pages.js"),
        ("GET", "static/chart.umd.min.js"),
    ]
    return [
        *found,
        ("GET", "docs"),
        ("GET", "openapi.json"),
        ("GET", "anything/else"),
        ("POST", "anything"),
    ]


def test_anonymous_is_refused_on_every_route(office: Office) -> None:
    for method, path in list_routes(office):
        status, text = office.get(path, None, method)
        assert status == 401, path
        assert text == "Sign in to Airflow first."


def test_a_viewer_sees_counts_subs_and_reasons_and_an_operator_all(office: Office) -> None:
    for method, path in list_routes(office)[:5]:
        status, text = office.get(path, "vera", method)
        assert status == 200
        assert "example.org" not in text
        assert "Almeida" not in text
        assert office.get(path, "omar", method)[0] == 200
    assert ANA in office.get(list_routes(office)[2][1], "omar", "POST")[1]


def test_only_the_approvers_in_the_settings_see_values(office: Office) -> None:
    path = list_routes(office)[2][1]
    office.company.configure(approval={"approvers": ["olga"]})
    assert ANA not in office.get(path, "omar", "POST")[1]
    assert ANA in office.get(path, "olga", "POST")[1]
    office.company.configure(approval={"approvers": []})


def test_one_server_shows_each_new_run_at_once(office: Office) -> None:
    for number in range(2):
        office.company.pool.users.append(user(f"later{number}@example.org"))
        run_id = office.api().run(SYNC)
        status, text = office.get(f"dags/{SYNC}/runs/{quote_run_id(run_id)}", "olga")
        assert status == 200
        assert "1 user created" in text
        as_airflow_links = urllib.parse.quote(run_id, safe=":+")
        assert as_airflow_links in office.get(f"dags/{SYNC}", "olga")[1]


def test_no_log_of_airflows_names_anybody(office: Office) -> None:
    home = Path(office.variables["AIRFLOW_HOME"])
    logs = "\n".join(
        path.read_text(encoding="utf-8", errors="replace")
        for path in (home / "logs").rglob("*.log")
    )
    server = (home.parent / "airflow.log").read_text(encoding="utf-8", errors="replace")
    assert "/directory-sync/" in server
    assert "almeida" not in (logs + server).lower()
    assert "Traceback" not in server
