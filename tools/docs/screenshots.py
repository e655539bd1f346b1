"""screenshots: every page of the site in a browser, at 1280 and 390 pixels, light and dark, into build/screenshots.

python -m tools.docs.screenshots               every page
python -m tools.docs.screenshots start/install a page

Needs the built site (`make docs`) and Debian's chromium and chromium-driver. A page that is wider than the window is
named, and the exit code is 1.
"""

import functools
import http.server
import sys
import threading
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).parent.parent.parent
SITE, OUT = ROOT / "build" / "site", ROOT / "build" / "screenshots"
WIDTHS_PX, SCHEMES = (1280, 390), ("light", "dark")
MOST_PX = 4000  # of a page's height


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def browser() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for switch in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(switch)
    return webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def photograph(chrome: webdriver.Chrome, url: str, width_px: int, scheme: str, file: Path) -> bool:
    """Save a picture of the page. Returns whether the page is no wider than the window."""
    size = {"width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": width_px < 500}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    chrome.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": url[: url.index("/", 8)], "storageTypes": "all"})
    chrome.get(url)  # without what the last visit chose, the page follows the scheme that the browser prefers
    height = chrome.execute_script("return document.documentElement.scrollHeight")
    wide = chrome.execute_script("return document.documentElement.scrollWidth")
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**size, "height": min(height, MOST_PX)})
    chrome.save_screenshot(str(file))
    return bool(wide <= width_px)


def main() -> None:
    pages = sys.argv[1:] or sorted(str(p.parent.relative_to(SITE)) for p in SITE.rglob("index.html"))
    OUT.mkdir(parents=True, exist_ok=True)
    handler = functools.partial(Silent, directory=str(SITE))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    chrome, too_wide = browser(), []
    try:
        for page in pages:
            for width_px in WIDTHS_PX:
                for scheme in SCHEMES:
                    name = "index" if page == "." else page.replace("/", "-")
                    url = f"http://127.0.0.1:{server.server_port}/{page}/"
                    if not photograph(chrome, url, width_px, scheme, OUT / f"{name}-{width_px}-{scheme}.png"):
                        too_wide.append(f"{page} at {width_px}")
    finally:
        chrome.quit()
        server.shutdown()
    print(f"{len(pages)} pages in {OUT.relative_to(ROOT)}")
    if too_wide:
        raise SystemExit(f"wider than the window: {', '.join(sorted(set(too_wide)))}")


if __name__ == "__main__":
    main()
