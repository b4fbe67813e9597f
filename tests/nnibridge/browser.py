"""NNI's web page in a real browser, as the tests and the pictures of the documentation look at it."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

_PATIENCE = 20.0  # seconds until the page shows something
_FONTS = "cdn.office.net/"  # where the page looks for its fonts
_ROW, _CELL = '[data-automationid="DetailsRow"]', '[role="gridcell"]'
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root, as in a container, cannot have one
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-proxy-server",
    "--force-device-scale-factor=1",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no network
)


class WebPage:
    """One page of NNI in a browser.

    Args:
        driver: The browser.
        url: Address of the page, without a path.
    """

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver, self.url = driver, url
        driver.get("about:blank")  # what was open there may miss its server
        driver.get_log("browser")

    def api(self, path: str) -> Any:
        """The JSON that NNI's server answers under ``/api/v1/nni``."""
        with urllib.request.urlopen(f"{self.url}/api/v1/nni{path}", timeout=10) as answer:
            return json.load(answer)

    def trials(self) -> dict[int, dict[str, Any]]:
        """What the server tells about the trials, by their number; ``parameters`` and ``final`` are decoded."""
        found = {}
        for trial in self.api("/trial-jobs"):
            final = trial.get("finalMetricData")
            trial["parameters"] = json.loads(trial["hyperParameters"][0])["parameters"]
            trial["final"] = json.loads(json.loads(final[0]["data"])) if final else None
            found[trial["sequenceId"]] = trial
        return found

    def curve(self, trial_id: str) -> list[dict[str, float]]:
        """The intermediate results of a trial, in their order."""
        told = [row for row in self.api(f"/metric-data/{trial_id}") if row["type"] == "PERIODICAL"]
        return [json.loads(json.loads(row["data"])) for row in sorted(told, key=lambda row: row["sequence"])]

    def overview(self) -> str:
        """Open the overview; its text."""
        self.driver.get(f"{self.url}/oview")
        self.wait_for("canvas")
        self.wait_for(".complete-tirals")  # NNI's spelling
        return self.driver.find_element("tag name", "body").text

    def table(self, count: int) -> dict[int, dict[str, str]]:
        """Open the list of trials and wait until it has so many.

        Returns:
            By number of the trial the texts of its cells; ``status`` and ``latestAccuracy`` are keys of theirs.
        """
        self.driver.get(f"{self.url}/detail")
        self.wait_for(_ROW, count)
        rows = [
            {
                cell.get_dom_attribute("data-automation-key"): cell.text
                for cell in row.find_elements("css selector", _CELL)
            }
            for row in self.driver.find_elements("css selector", _ROW)
        ]
        return {int(row["sequenceId"]): row for row in rows}

    def row(self, number: int) -> WebElement:
        """A trial in the list of trials that is open."""
        number_cell = f"//*[@data-automation-key='sequenceId' and text()='{number}']"
        return self.driver.find_element("xpath", f"{number_cell}/ancestor::*[@data-automationid='DetailsRow']")

    def parameters(self, number: int) -> str:
        """Unfold a trial of the list; the text of its parameters."""
        self.click(self.row(number).find_element("css selector", '[data-icon-name="ChevronRight"]'))
        return self.wait_for(".openRowContent .bgHyper").text

    def intermediate_keys(self, number: int) -> list[str]:
        """Open the curves of a trial of the list; the names of those that can be chosen."""
        self.click(self.row(number).find_element("css selector", '[title="Intermediate"]'))
        self.wait_for(".compare-modal-intermediate canvas")
        self.wait_for(".selectKeys [role=combobox]").click()
        self.wait_for("[role=listbox] [role=option]")
        return [option.text for option in self.driver.find_elements("css selector", "[role=listbox] [role=option]")]

    def choose_key(self, key: str) -> None:
        """Choose a curve where :meth:`intermediate_keys` has opened the list of them."""
        options = self.driver.find_elements("css selector", "[role=listbox] [role=option]")
        next(option for option in options if option.text == key).click()

    def cancel(self, number: int) -> None:
        """Cancel a trial of the list, as a person does."""
        self.click(self.row(number).find_element("css selector", '[title="kill"]'))
        self.wait_for("[role=alertdialog] .ms-Button--primary").click()

    def tab(self, name: str) -> None:
        """Open one of the graphs over the list of trials."""
        self.click(self.driver.find_element("xpath", f"//button[@role='tab'][contains(., '{name}')]"))

    def coloured(self, selector: str) -> int:
        """How many pixels of a graph have a colour; axes and texts are grey."""
        self.wait_for(selector)
        script = """
            const canvas = document.querySelector(arguments[0]), {width, height} = canvas;
            const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
            let found = 0;
            for (let i = 0; i < data.length; i += 4) {
                const [red, green, blue] = data.subarray(i, i + 3);
                found += Math.max(red, green, blue) - Math.min(red, green, blue) > 60;
            }
            return found;"""
        return int(self.driver.execute_script(script, selector))

    def click(self, element: WebElement) -> None:
        """Click, wherever the element is on the page."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def wait_for(self, selector: str, count: int = 1) -> WebElement:
        """Wait until so many elements are there; the first of them."""
        from selenium.webdriver.support.ui import WebDriverWait

        def found(driver: Chrome) -> WebElement | bool:
            elements = driver.find_elements("css selector", selector)
            return elements[0] if len(elements) >= count else False

        message = f"no {count} of {selector} in {self.driver.current_url}"
        element: Any = WebDriverWait(self.driver, _PATIENCE).until(found, message)
        return cast("WebElement", element)

    def complaints(self) -> list[str]:
        """Severe messages of the browser's console, but for fonts that cannot be had without a network."""
        told: list[Any] = self.driver.get_log("browser")
        found = [entry["message"] for entry in told if entry["level"] == "SEVERE"]
        return [message for message in found if _FONTS not in message.partition(" ")[0]]


@contextmanager
def browser() -> Iterator[Chrome]:
    """A browser without a window and without a network; the test is skipped where there is none."""
    pytest.importorskip("selenium", reason="selenium is not installed (pip install selenium)")
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("chromium or chromedriver is not installed (Debian: apt install chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for option in (*_OPTIONS, "--window-size=1280,1000"):
        options.add_argument(option)
    opened = webdriver.Chrome(options, Service(driver))
    try:
        yield opened
    finally:
        opened.quit()
