"""A sweep in a headless browser: its runs and pictures in MLflow, and its report."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server
from sweeping import SMALL, mlflow_runs, run_search

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a real MLflow server on a finished sweep, and the sweep's folder."""
    folder = tmp_path_factory.mktemp("browser")
    done = run_search(folder, "--name", "seen", *SMALL)
    assert done.returncode == 0, done.stderr
    server = Server(folder)
    yield server.uri, folder
    server.send(signal.SIGTERM)
    server.process.wait(20)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; on Debian: apt-get install chromium")
def test_the_page_shows_the_sweep_its_children_and_its_pictures(page_of: tuple[str, Path]) -> None:
    from playwright.sync_api import sync_playwright

    address, folder = page_of
    parent = next(run for run in mlflow_runs(folder, "seen") if run.data.tags["ltsd.kind"] == "sweep")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.goto(f"{address}/#/experiments/{parent.info.experiment_id}/runs")
        page.get_by_text("seen", exact=True).first.wait_for(timeout=120_000)
        assert page.get_by_text("final-finalist-").count() == 0
        page.locator("[role=gridcell]").filter(has_text="seen").first.get_by_role("button").first.click()
        page.get_by_text("final-finalist-").first.wait_for(timeout=60_000)
        shots = os.environ.get("LTSD_SCREENSHOTS")
        if shots:
            page.wait_for_timeout(2000)
            page.screenshot(path=f"{shots}/mlflow.png")
        page.goto(f"{address}/#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}/artifacts")
        for picture in ("scores.png", "parallel_coordinates.png", "finals.png"):
            page.get_by_text(picture).first.wait_for(timeout=60_000)
        page.get_by_text("finals.png").first.click()
        page.wait_for_function("[...document.images].some(image => image.naturalWidth > 400)", timeout=30_000)
        if shots:
            page.screenshot(path=f"{shots}/mlflow-finals.png")
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; on Debian: apt-get install chromium")
def test_the_report_is_interactive_without_a_network_and_leads_to_the_runs(page_of: tuple[str, Path]) -> None:
    from playwright.sync_api import sync_playwright

    address, folder = page_of
    said = list[str]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto((folder / "runs/seen/report.html").as_uri())
        trials = page.locator("table.sortable").filter(has_text="complete")
        scores = trials.locator("tbody tr td:nth-child(2)")
        trials.get_by_text("robust", exact=True).click()
        rising = scores.all_inner_texts()
        trials.get_by_text("robust", exact=True).click()
        assert rising == sorted(rising, key=float) == scores.all_inner_texts()[::-1]
        axis = page.locator(".parcoords .axis-brush").nth(1)
        axis.scroll_into_view_if_needed()
        box = axis.bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2
        page.mouse.move(middle, box["y"] + box["height"] * 0.3)
        page.mouse.down()
        page.mouse.move(middle, box["y"] + box["height"] * 0.7, steps=5)
        page.mouse.up()
        page.wait_for_function(
            "[...document.querySelectorAll('.js-plotly-plot')].some("
            "plot => plot.data[0].type === 'parcoords' && plot.data[0].dimensions.some(axis => axis.constraintrange))"
        )
        assert not said
        link = trials.locator("tbody a").first
        job = f"trial-{int(link.inner_text()):04d}"
        page.goto(str(link.get_attribute("href")).replace("http://127.0.0.1:5000", address))
        page.get_by_role("heading", name=job).wait_for(timeout=60_000)
        browser.close()
