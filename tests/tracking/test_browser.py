"""What a reviewer sees in a real browser: the MLflow pages of a training, and its report.

``SCREENSHOTS=folder pytest -m slow tests/tracking/test_browser.py`` keeps pictures of the run page and of the report.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import pytest
import yaml
from cohorts import tiny_config
from PIL import Image

from pipeline.cli import run

pytestmark = pytest.mark.slow
# An img, or a background, whose bytes came: MLflow has shown pictures either way.
_LARGE_PICTURE = """() => [...document.querySelectorAll('img, canvas, svg image, [style*="background-image"]')]
    .some(each => each.getBoundingClientRect().width > 200)"""
PATIENCE = 180_000  # milliseconds: a shared machine may be slow, and nothing here measures time


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, without a window; nothing is downloaded."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the test-only package playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"], timeout=PATIENCE
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cohort_manifest):
    """A folder with a store that holds two trainings of one registered model."""
    folder = tmp_path_factory.mktemp("reviewed")
    config = tiny_config(cohort_manifest, folder)
    config["evaluation"] = {**config.get("evaluation", {}), "pictures": True}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for seed in (0, 1):
            assert run(["train", "tiny.yaml", f"seed={seed}"]) == 0
    return folder


@pytest.fixture(scope="module")
def address(trained):
    """``malignancy ui`` on a free port, as a user starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "pipeline", "ui", "--port", str(port)]
    with (trained / "server.log").open("w") as log:
        # A session of its own, so that the server's workers end with it.
        server = subprocess.Popen(command, cwd=trained, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(PATIENCE // 1000):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                assert server.poll() is None, (trained / "server.log").read_text()
                time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    yield opened
    context.close()


@pytest.fixture(scope="module")
def runs(trained):
    client = mlflow.MlflowClient(f"sqlite:///{trained}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "tiny"]
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def keep(page, name, **options):
    """A small PNG of the page, when it was asked for."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
        picture.quantize(64, dither=Image.Dither.NONE).save(Path(folder) / f"{name}.png", optimize=True)


def test_experiment_page_lists_both_runs_with_what_they_are(page, address, runs):
    page.goto(f"{address}/#/experiments/{runs[0].info.experiment_id}/runs")
    for each in runs:
        page.get_by_text(each.info.run_name).first.wait_for()
    assert "simulated intensities" in runs[0].info.run_name


def test_prepared_pages_open_for_model_training_with_the_headline(page, address, trained):
    """The addresses that ``malignancy ui`` prints, on which a browser that is new to them shows no GenAI view."""
    printed = dict(re.findall(r"^(.+?): (http://\S+)$", (trained / "server.log").read_text(), re.MULTILINE))
    page.goto(printed["runs of tiny"])
    page.get_by_text("Model registry").first.wait_for()
    for name in ("test_auroc", "test_auroc_lower", "test_auroc_upper"):
        page.get_by_role("columnheader", name=name).first.wait_for()
    assert page.get_by_text("Prompts & versions").count() == 0
    keep(page, "runs-page")
    (beside,) = [url for title, url in printed.items() if title.startswith("tiny: champion")]
    page.goto("about:blank")
    page.goto(beside)
    page.get_by_text(re.compile(r"Headline\s*\(10\)")).first.wait_for()
    page.get_by_text("2 matching runs").first.wait_for()
    keep(page, "champion-beside-challenger")


def test_run_page_says_which_is_better_and_whether_it_is_calibrated(page, address, runs):
    second = runs[1].info
    page.goto(f"{address}/#/experiments/{second.experiment_id}/runs/{second.run_id}")
    page.get_by_text("AUROC gain over the champion").first.wait_for()
    page.get_by_text(re.compile("^Calibration \\(.*\\): (shown|not shown|refuted): ")).first.wait_for()
    page.get_by_text("test_auroc_gain_over_champion").first.wait_for()
    keep(page, "run-page")


def test_report_and_figures_open_among_the_runs_artifacts(page, address, runs):
    second = runs[1].info
    page.goto(f"{address}/#/experiments/{second.experiment_id}/runs/{second.run_id}/artifacts/report.html")
    frame = page.frame_locator("iframe").first
    frame.get_by_role("heading", name="All statistics").wait_for()
    for heading in ("Participant flow", "Figures", "The most confident mistakes", "Provenance"):
        assert frame.get_by_role("heading", name=heading).is_visible()
    page.get_by_text("figures", exact=True).click()
    for figure in ("decision_curve", "precision_recall", "probability_histogram", "reliability", "roc"):
        page.get_by_text(f"{figure}.png").first.wait_for()
    page.get_by_text("reliability.png").click()
    page.get_by_text(re.compile("^Path: .*figures/reliability.png")).wait_for()
    page.wait_for_function(_LARGE_PICTURE)


@pytest.mark.parametrize("width", [390, 1100])
def test_report_loads_nothing_and_fits_the_screen(browser, trained, width):
    (report, *_) = sorted((trained / "runs").glob("*/report.html"), reverse=True)
    assert report.stat().st_size < 3_000_000
    context = browser.new_context(viewport={"width": width, "height": 1500})
    opened, asked = context.new_page(), []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(report.as_uri())
    assert all(url.startswith(("file:", "data:")) for url in asked)
    sizes = opened.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(sizes) > 5
    assert min(sizes) > 0  # every picture is inside the page and can be drawn
    assert opened.evaluate("document.documentElement.scrollWidth") <= width  # no sideways scrolling of the page
    if width > 1000:
        keep(opened, "report")
    context.close()


def test_model_page_shows_versions_and_aliases(page, address, trained):
    page.goto(f"{address}/#/models/tiny")
    for words in ("champion", "challenger", "Version 2"):
        page.get_by_text(words).first.wait_for()
    page.goto(f"{address}/#/models/tiny/versions/2")
    page.get_by_text("AUROC gain over the champion").first.wait_for()
    page.get_by_text("label_source").first.wait_for()
