"""Laws of a report's page in a real Chromium: it shows the study's own numbers, to everyone, without a network."""

import html
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_studies import FULL, SETTINGS
from test_study import APART

import fed_lorac as fl

pytestmark = pytest.mark.slow

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is here: apt-get install chromium")
ODD = 'lora-c & "r" <b>2'
STUDY: dict[str, Any] = {
    "seeds": [0, 1],
    "settings": {**SETTINGS, "run.rounds": 2, "fleet.cameras": 3, "fleet.per_round": 3, "fleet.schedule": "front"}
    | {"fleet.devices": "limited", "fleet.limited.dropout": 0.3},
    "arms": {"full": FULL, ODD: {"adapter.rank": 2}},
    "tune": {"grid": {"local.lr": [0.01, 0.05]}, "settings": APART},
}
WIDTHS = {"desk": 1200, "phone": 390}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> fl.StudyResult:
    found = fl.study(STUDY, tmp_path_factory.mktemp("page") / "digits", progress=False)
    fl.report(found)
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page in a browser that has no network, and all that it complained of."""

    def __init__(self, browser: Any, file: Path, width: int, **how: Any) -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **how)
        context.set_default_timeout(240_000)
        self.page, self.complaints = context.new_page(), list[str]()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_function(
            "[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg')) && document.fonts.ready"
        )

    def traces(self, figure: str) -> list[dict[str, Any]]:
        """What the browser drew of a figure."""
        drawn = f"document.getElementById('plot-{figure}').data"
        found: list[dict[str, Any]] = json.loads(self.page.evaluate(f"JSON.stringify({drawn})"))
        return found


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_at_both_widths_without_a_complaint_or_a_network(
    study: fl.StudyResult, browser: Any, width: str, tmp_path: Path
) -> None:
    opened = Opened(browser, study.path / "report.html", WIDTHS[width])
    assert opened.complaints == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
    assert all(image.get_attribute("alt") for image in opened.page.query_selector_all("img"))
    opened.page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert Image.open(tmp_path / "page.png").width == WIDTHS[width]
    plots = opened.page.query_selector_all(".plot")
    assert len(plots) >= 10
    for plot in plots:
        box = plot.query_selector(".main-svg").bounding_box()
        assert 0 < box["width"] <= WIDTHS[width] and plot.get_attribute("aria-label")
        shown = np.asarray(Image.open(BytesIO(plot.screenshot())))
        assert shown.std() > 1, f"{plot.get_attribute('id')} is one colour"


@needs_browser
def test_what_is_drawn_is_what_the_study_found(study: fl.StudyResult, browser: Any) -> None:
    opened = Opened(browser, study.path / "report.html", 1200)
    runs, rounds = study.runs, study.rounds
    single = [one for one in opened.traces("frontier") if one["opacity"] != 1]
    assert sorted(point for trace in single for point in zip(trace["x"], trace["y"], strict=True)) == sorted(
        zip(runs.total_bytes.astype(float), runs.accuracy_over_rounds, strict=True)  # weather changes
    )
    means = {t["y"][0] for t in opened.traces("frontier") if t["opacity"] == 1 and t["type"] == "scatter"}
    assert set(runs.groupby("arm").accuracy_over_rounds.mean().round(12)) <= {round(value, 12) for value in means}
    by_round = rounds.groupby(["arm", "round"]).accuracy.mean()
    drawn = [value for trace in opened.traces("curves") for value in trace["y"]]
    assert sorted(drawn) == pytest.approx(sorted(by_round))
    errors = rounds.groupby(["arm", "round"]).aggregation_error.mean()
    drawn = [value for trace in opened.traces("error") for value in trace["y"]]
    assert sorted(drawn) == pytest.approx(sorted(errors[errors > 0]))
    up = next(trace for trace in opened.traces("bytes") if trace["name"] == "up")
    assert sorted(up["x"]) == pytest.approx(sorted(rounds.groupby("arm").uplink_frame_bytes.mean()))
    left_out = rounds.cameras_left_out.sum() / (rounds.cameras_counted + rounds.cameras_left_out).sum()
    bars = [value for trace in opened.traces("left-out") for value in trace["x"]]
    assert sum(bars) / 2 == pytest.approx(left_out)  # two arms that asked for as many replies
    assert study.tuning is not None
    tuned = [point for trace in opened.traces("tuning") for point in zip(trace["x"], trace["y"], strict=True)]
    assert sorted(tuned) == sorted(zip(study.tuning["local.lr"], study.tuning.accuracy, strict=True))


def cells_of(opened: Opened, figure: str) -> dict[tuple[str, str], float]:
    """A heat map as the browser has it: (row, column) -> value."""
    (heat,) = opened.traces(figure)
    words = [html.unescape(word.replace("<br>", " ")) for word in heat["y"]]
    return {
        (row, html.unescape(column)): value
        for row, values in zip(words, heat["z"], strict=True)
        for column, value in zip(heat["x"], values, strict=True)
        if value is not None
    }


def points_of(opened: Opened, figure: str, **kept: Any) -> dict[tuple[str, str], list[float]]:
    """A figure with an arm a line, of the traces that have these values: (trace, arm) -> its values."""
    found = defaultdict(list)
    for trace in opened.traces(figure):
        if all(trace[key] == value for key, value in kept.items()):
            for x, word in zip(trace["x"], trace["y"], strict=True):
                found[trace["name"], html.unescape(word.replace("<br>", " "))].append(x)
    return found


@needs_browser
def test_each_camera_and_weather_is_drawn_as_the_runs_measured_it(study: fl.StudyResult, browser: Any) -> None:
    opened = Opened(browser, study.path / "report.html", 1200)
    runs = [(row.arm, study.run(str(row.run))) for row in study.runs.itertuples()]
    each = pd.concat([run.cameras.assign(arm=arm, seed=run.summary["seed"]) for arm, run in runs])
    each = each[each.accuracy.notna()].assign(
        weather=[
            f"{row.corruption} {row.severity}" if row.severity else "clear"
            for row in each.itertuples()
            if not pd.isna(row.accuracy)
        ]
    )
    last = each[each["round"] == 2]
    assert cells_of(opened, "cameras") == pytest.approx(
        {
            (arm, f"{k}: {weather}".replace("_", " ")): of.mean()
            for (arm, k, weather), of in last.groupby(["arm", "camera", "weather"]).accuracy
        }
    )
    spread = points_of(opened, "spread", opacity=0.45)
    for arm, its in last.groupby("arm"):
        assert sorted(spread["", arm]) == pytest.approx(sorted(its.groupby("camera").accuracy.mean()))
    by_weather = defaultdict(list)
    for arm, run in runs:
        for weather, its in run.summary["per_corruption"].items():
            by_weather[arm, weather.replace("_", " ")].append(its["adapted"])
        by_weather[arm, "all in clear air"].append(run.summary["clean_accuracy"]["adapted"])
    arms = {arm for arm, _ in runs}
    drawn = {cell: value for cell, value in cells_of(opened, "weather").items() if cell[0] in arms}
    assert drawn == pytest.approx({cell: np.mean(values) for cell, values in by_weather.items() if None not in values})
    best = study.runs.groupby("arm").accuracy_over_rounds.mean().idxmax()
    first = each[(each.arm == best) & (each.seed == 0)]
    assert cells_of(opened, "weather-rounds") == pytest.approx(
        {(f"camera {row.camera}", str(row.round)): row.accuracy for row in first.itertuples()}
    )


@needs_browser
def test_air_time_and_energy_are_drawn_as_the_runs_have_them(study: fl.StudyResult, browser: Any) -> None:
    opened = Opened(browser, study.path / "report.html", 1200)
    air, joules = defaultdict(list), defaultdict(list)
    for row in study.runs.itertuples():
        run = study.run(str(row.run))
        for link, days in run.summary["days"].items():
            air[link, row.arm].append(days["adapter"])
        for link, its in run.cameras.groupby("link"):
            joules[link, row.arm].append(its.groupby("camera").energy_radio_j.sum().mean())
    for figure, wanted in (("air", air), ("energy", joules)):
        drawn = points_of(opened, figure, opacity=1)
        assert drawn.keys() == wanted.keys() and drawn
        for place, (value,) in drawn.items():
            assert value == pytest.approx(np.mean(wanted[place]))


@needs_browser
def test_hovering_shows_the_run(study: fl.StudyResult, browser: Any) -> None:
    opened = Opened(browser, study.path / "report.html", 1200)
    opened.page.evaluate(
        "document.getElementById('plot-frontier').scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    single = next(place for place, one in enumerate(opened.traces("frontier")) if one["opacity"] != 1)
    opened.page.evaluate(f"Plotly.Fx.hover('plot-frontier', [{{curveNumber: {single}, pointNumber: 0}}])")
    said = opened.page.text_content("#plot-frontier .hoverlayer")
    first = study.runs.sort_values("total_bytes").iloc[0]
    assert str(first.run) in said and f"seed {first.seed}" in said
    assert ODD in said, "a name is text, whatever is in it"


@needs_browser
def test_print_and_pages_without_scripts_have_the_figures_too(study: fl.StudyResult, browser: Any) -> None:
    opened = Opened(browser, study.path / "report.html", 1200)
    opened.page.emulate_media(media="print")
    figures = opened.page.query_selector_all("figure")
    assert figures and all(one.query_selector("img").is_visible() for one in figures)
    assert not any(plot.is_visible() for plot in opened.page.query_selector_all(".plot"))


def test_the_same_study_gives_the_same_page_and_each_figure_as_files(study: fl.StudyResult, tmp_path: Path) -> None:
    page = fl.report(study, out=tmp_path, title="digits")
    assert page == tmp_path / "report.html" and page.read_bytes() == (study.path / "report.html").read_bytes()
    for picture in (tmp_path / "figures").glob("*.png"):
        assert np.asarray(Image.open(picture)).std() > 0
        assert picture.stem == "contact-sheet" or picture.with_suffix(".csv").read_text().count("\n") > 1
    assert (tmp_path / "figures" / "frontier.svg").read_bytes() == (study.path / "figures/frontier.svg").read_bytes()
    assert not (fl.report(study, out=tmp_path, images=False).parent / "figures" / "contact-sheet.png").exists()
