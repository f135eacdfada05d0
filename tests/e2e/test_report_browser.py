"""The page in a real browser: drawn, silent, and asking nobody for anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route

from auditkit.report import build_report, to_html
from tests.report_sample import sample_audit

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(to_html(build_report(sample_audit())), encoding="utf-8")
    return path


class Watched:
    """An opened page with everything that it must not do written down."""

    def __init__(self, browser: Browser, report: Path, scheme: str, width: int) -> None:
        self.requests: list[str] = []
        self.troubles: list[str] = []
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # pyright: ignore[reportArgumentType]
        )
        self.page.route("**/*", self._route)
        self.page.on("console", lambda m: self.troubles.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.troubles.append(f"error: {e}"))
        self.page.on("dialog", self._dialog)
        self.page.goto(report.as_uri(), wait_until="load")

    def _route(self, route: Route) -> None:
        url = route.request.url
        if url.startswith("data:"):
            route.continue_()
            return
        self.requests.append(url)
        if len(self.requests) == 1:
            route.continue_()
        else:
            route.abort()

    def _dialog(self, dialog: object) -> None:
        self.troubles.append(f"dialog: {dialog}")
        dialog.dismiss()  # type: ignore[attr-defined]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_opens_quietly_and_draws_its_plots(
    browser: Browser, report: Path, scheme: str, width: int
) -> None:
    watched = Watched(browser, report, scheme, width)
    page = watched.page
    plots = page.locator("figure.plot svg")
    assert plots.count() == 2
    for i in range(plots.count()):
        box = plots.nth(i).bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 100
    text = page.locator("body").inner_text()
    assert "<script>alert(1)</script>" in text
    assert "⟨U+202E⟩" in text
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert watched.troubles == []
    assert watched.requests == [report.as_uri()]
    page.close()


def test_a_hostile_match_is_shown_as_text_in_its_tokens(browser: Browser, report: Path) -> None:
    watched = Watched(browser, report, "light", 1200)
    strip = watched.page.locator(".strip").nth(1)
    assert "<script>" in strip.inner_text()
    assert strip.locator("script").count() == 0
    assert watched.page.locator(".t.fired").count() >= 2
    assert watched.troubles == []
    watched.page.close()
