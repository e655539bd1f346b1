"""The report in a real browser, without a network: headless Chromium, driven by selenium. `make test-browser`."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up import failed, measured
from studies import HOSTILE, VALUES, large, study, usual

from autotune.report.page.page import write_report
from autotune.report.summary import read_summary

pytestmark = pytest.mark.browser
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
)
FIRST_PAINT_MS = 2000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests, offline; its log is read by `check`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for switch in SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


def visit(browser: Any, folder: Path, *, plots: bool = True) -> None:
    """Write the report of this study and open it in this tab, from disk, with the network off."""
    summary = read_summary(folder)
    write_report(summary)
    browser.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    browser.get(summary.folder.report.resolve().as_uri())
    if plots:
        wait(browser, "document.documentElement.dataset.drawn === 'yes'")


def check(browser: Any) -> None:
    """Nothing stands in the console, and nothing was asked for but files."""
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "chrome"}


@pytest.fixture(scope="module")
def tabs(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One with the report of a usual study, which most tests share, and one for other studies."""
    tabs = {"other": browser.current_window_handle}
    browser.switch_to.new_window("tab")
    visit(browser, usual(tmp_path_factory.mktemp("browser") / "study").path)
    return tabs | {"usual": browser.current_window_handle}


@pytest.fixture
def page(browser: Any, tabs: dict[str, str]) -> Iterator[Any]:
    """The report of the usual study, as it is when it was opened."""
    browser.switch_to.window(tabs["usual"])
    window(browser, 1200)
    type_into(browser, "filter", "")
    type_into(browser, "kind", "")
    browser.execute_script(
        "for (const row of document.querySelectorAll('tr.selected')) row.classList.remove('selected')"
    )
    yield browser
    check(browser)


@pytest.fixture
def open_report(browser: Any, tabs: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """Opens the report of a study of one's own."""
    browser.switch_to.window(tabs["other"])
    window(browser, 1200)

    def opened(folder: Path, *, plots: bool = True) -> Any:
        visit(browser, folder, plots=plots)
        return browser

    yield opened
    check(browser)


def wait(browser: Any, script: str, seconds: float = 30.0) -> Any:
    """The script's value as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(f"return {script}")):
        assert time.monotonic() < end, f"never true: {script}"
        time.sleep(0.05)
    return value


def window(browser: Any, width: int, height: int = 900) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def text(browser: Any, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0]).textContent", selector)).strip()


def selected(browser: Any) -> list[str]:
    return list(
        browser.execute_script("return [...document.querySelectorAll('tr.selected')].map((row) => row.dataset.number)")
    )


def shown(browser: Any) -> list[str]:
    rows = "[...document.querySelectorAll('#trials tbody tr')]"
    return list(browser.execute_script(f"return {rows}.filter((row) => !row.hidden).map((row) => row.dataset.number)"))


def type_into(browser: Any, id: str, words: str) -> None:
    script = """
        const e = document.getElementById(arguments[0]);
        e.value = arguments[1];
        e.dispatchEvent(new Event(e.tagName === "SELECT" ? "change" : "input"));
    """
    browser.execute_script(script, id, words)


def click_point(browser: Any, plot: str, number: int) -> None:
    """A real click of the mouse, where the plot has drawn this trial."""
    from selenium.webdriver.common.action_chains import ActionChains

    script = """
        const plot = document.getElementById(arguments[0]);
        plot.scrollIntoView({block: "center", behavior: "instant"});
        const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
        for (const trace of plot.data) for (const [i, own] of (trace.customdata ?? []).entries())
          if (own[0] === arguments[1])
            return [box.x + xaxis._offset + xaxis.d2p(trace.x[i]), box.y + yaxis._offset + yaxis.d2p(trace.y[i])];
    """
    wait(browser, f"document.querySelectorAll('#{plot} .scatterlayer .points path').length")
    hovered = f"(document.getElementById('{plot}')._hoverdata ?? []).some((point) => point.customdata[0] === {number})"
    end = time.monotonic() + 30
    while not browser.execute_script(f"return {hovered}"):  # the plot takes a click where it has seen the mouse
        assert time.monotonic() < end, f"the mouse never reached trial {number} in {plot}"
        x, y = browser.execute_script(script, plot, number)
        for offset in (3, 0):  # a mouse that stays where it was sends nothing
            actions = ActionChains(browser)
            actions.w3c_actions.pointer_action.move_to_location(round(x) + offset, round(y))
            actions.perform()
        time.sleep(0.2)
    actions = ActionChains(browser)
    actions.w3c_actions.pointer_action.click()
    actions.perform()


def test_the_plots_are_drawn_with_a_mark_for_every_trial(page: Any) -> None:
    marks = "document.querySelectorAll('#{} .scatterlayer .points path').length"
    assert wait(page, marks.format("pareto")) == 5
    assert wait(page, marks.format("failures")) == 2
    assert wait(page, "document.querySelectorAll('#progress .scatterlayer .js-line').length") == 2


@pytest.mark.parametrize(("plot", "number"), [("pareto", 1), ("pareto", 3), ("failures", 5)])
def test_a_click_on_a_point_selects_its_row(page: Any, plot: str, number: int) -> None:
    assert selected(page) == []
    click_point(page, plot, number)
    wait(page, "document.querySelector('tr.selected')")
    assert selected(page) == [str(number)]
    assert f"Trial {number}: " in text(page, "#detail")


def test_a_row_is_selected_by_the_keyboard_and_ringed_in_the_plot(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.find_element("id", "trial-2").send_keys(Keys.ENTER)
    assert selected(page) == ["2"]
    assert page.execute_script("return document.getElementById('pareto').data.at(-1).x") == [0.9]


def test_the_slider_uncovers_the_other_picture(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    clip = "document.getElementById('mine').style.clipPath"
    assert "50%" in wait(page, clip)
    page.find_element("id", "slide").send_keys(Keys.ARROW_RIGHT * 5)
    assert "55%" in wait(page, clip)
    page.find_element("id", "slide").send_keys(Keys.HOME)
    assert wait(page, clip) in ("inset(0px)", "inset(0px 0px 0px 0%)")


def test_a_picture_that_is_chosen_lies_beside_the_baselines_of_the_same_prompt(page: Any) -> None:
    page.execute_script('document.querySelector(\'.shot[data-trial="2"][data-index="1"]\').click()')
    assert page.execute_script("return document.getElementById('mine').alt") == "Trial 2: a blue square"
    same = "document.getElementById('base').src === document.querySelectorAll('.of-baseline')[1].src"
    assert page.execute_script(f"return {same}")


def test_the_table_is_filtered_and_sorted(page: Any) -> None:
    type_into(page, "filter", "out_of_memory")
    assert shown(page) == ["5"]
    assert text(page, "#shown") == "1 of 7 trials"
    type_into(page, "filter", "")
    type_into(page, "kind", "failed")
    assert shown(page) == ["5", "6"]
    type_into(page, "kind", "")
    latency = page.find_elements("css selector", "#trials th button")[3]
    latency.click()
    assert shown(page) == ["3", "1", "4", "2", "0", "5", "6"]
    latency.click()
    assert shown(page) == ["0", "2", "4", "1", "3", "5", "6"], "those without a figure stay below"


def test_the_json_is_copied(page: Any) -> None:
    page.find_element("id", "copy").click()
    wait(page, "document.getElementById('copied').textContent === 'Copied.'")
    assert json.loads(text(page, "#json"))["knobs"]["dtype"] == "bf16"


def test_a_hostile_prompt_recipe_and_reason_stay_text(tmp_path: Path, open_report: Any) -> None:
    prompt = f'{HOSTILE}"><img src=x onerror=alert(2)>'
    trials = [measured(0), measured(1, VALUES[0], latency_s=0.5, origin=prompt), failed(2, VALUES[1])]
    browser = open_report(study(tmp_path / "study", trials, best=1, prompts=(prompt, "b")).path)
    click_point(browser, "pareto", 1)
    wait(browser, "document.querySelector('tr.selected')")
    assert browser.execute_script("return document.querySelector('#how-title ~ details li').textContent") == prompt
    assert prompt in text(browser, "#trial-1")
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert browser.execute_script("return document.querySelectorAll('script').length") == 4, (
        "ours, and the unpacked one"
    )


def test_five_hundred_trials_are_painted_and_filtered_in_time(tmp_path: Path, open_report: Any) -> None:
    browser = open_report(large(tmp_path / "study").path)
    paints = wait(browser, "performance.getEntriesByType('paint').map((entry) => entry.startTime)")
    assert max(paints) < FIRST_PAINT_MS
    begun = time.monotonic()
    type_into(browser, "filter", "crash")
    assert 0 < len(shown(browser)) < 100
    type_into(browser, "filter", "")
    click_point(browser, "pareto", 1)
    wait(browser, "document.querySelector('tr.selected')")
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("trials", [0, 1, 2])
def test_there_is_a_page_without_a_single_success_and_of_a_single_trial(
    tmp_path: Path, open_report: Any, trials: int
) -> None:
    made = {0: [], 1: [measured(0)], 2: [failed(0), failed(1, VALUES[0])]}[trials]
    browser = open_report(study(tmp_path / "study", made).path, plots=trials == 1)
    assert text(browser, "#answer").endswith(".")
    assert len(browser.find_elements("css selector", "#trials tbody tr")) == trials


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(
    tmp_path: Path, open_report: Any, browser: Any, scheme: str
) -> None:
    window(browser, 375, 800)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    open_report(usual(tmp_path / "study", prompts=("w" * 300, "b")).path)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 375
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


CONTRASTS = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = (rgb) => { const [r, g, b] = rgb.slice(0, 3).map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = (e) => {
  for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c; }
  return [255, 255, 255];
};
const found = [];
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || e.closest("svg, script, style") || !e.checkVisibility()) continue;
  const a = light(parse(getComputedStyle(e).color)), b = light(ground(e));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) found.push(`${e.tagName} ${e.className}: ${ratio.toFixed(2)}`);
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_has_the_contrast_of_wcag_aa(page: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.execute_script("document.getElementById('trial-1').click()")
    assert page.execute_script(CONTRASTS) == []


def test_all_that_can_be_clicked_can_be_reached_by_the_keyboard(page: Any) -> None:
    active = "button, a[href], input, select, summary, #trials tr[data-number], .scroll"
    script = "return [...document.querySelectorAll(arguments[0])].filter((e) => e.tabIndex < 0).length"
    assert page.execute_script(script, active) == 0
