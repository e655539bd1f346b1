"""Make the screenshots of the README and the docs from a study: python reports/screenshots.py reports/demo-cpu

It writes the report again, opens it in headless Chromium (apt-get install chromium chromium-driver) and saves
reports/screenshots/*.png. It needs the package selenium (in the extra `dev`).
"""

import base64
import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from autotune.report.page.page import write_report
from autotune.report.summary import read_summary

WIDTH_PX, PHONE_PX = 1100, 375
PATIENCE_S = 300  # a machine that does other work draws the plots in minutes
PARTS = (("trade-off", "#front-title", "#detail"), ("pictures", "#pictures-title", ".reel"))
SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def main(study: Path) -> None:
    """Save the trade-off and the pictures, light and dark, and the top of the page on a phone in dark mode."""
    summary = read_summary(study)
    write_report(summary)
    folder = Path(__file__).parent / "screenshots"
    folder.mkdir(exist_ok=True)
    browser = _browser()
    try:
        for scheme, ending in (("light", ""), ("dark", "-dark")):
            _open(browser, summary.folder.report, WIDTH_PX, scheme)
            for name, first, last in PARTS:
                _save(browser, folder / f"{name}{ending}.png", first, last)
        _open(browser, summary.folder.report, PHONE_PX, "dark")
        _save(browser, folder / "phone.png", "h1", "#detail")
    finally:
        browser.quit()


def _browser() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for switch in SWITCHES:
        options.add_argument(switch)
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    browser.set_script_timeout(PATIENCE_S)
    return browser


def _open(browser: webdriver.Chrome, report: Path, width_px: int, scheme: str) -> None:
    """Open the report and wait until its plots are drawn."""
    size = {"width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": width_px == PHONE_PX}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(report.resolve().as_uri())
    end = time.monotonic() + PATIENCE_S
    while not browser.execute_script("return document.documentElement.dataset.drawn"):
        if time.monotonic() > end:
            raise TimeoutError(f"the plots of {report} were not drawn within {PATIENCE_S} s")
        time.sleep(0.1)
    browser.execute_script(
        "(document.querySelector('tr[data-kind=pick]') ?? document.getElementById('trial-0')).click()"
    )
    time.sleep(1)  # for the ring around the selected point


def _save(browser: webdriver.Chrome, path: Path, first: str, last: str) -> None:
    """Save the page from the top of the element `first` to the end of the third element `last`, or of its last."""
    script = """
        const all = document.querySelectorAll(arguments[1]);
        const end = all[Math.min(2, all.length - 1)].getBoundingClientRect();
        const start = document.querySelector(arguments[0]).getBoundingClientRect();
        return [start.top + scrollY - 12, end.bottom + scrollY + 12, document.documentElement.clientWidth];
    """
    top, bottom, width = browser.execute_script(script, first, last)
    clip = {"x": 0, "y": top, "width": width, "height": bottom - top, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(shot["data"]))
    print(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
