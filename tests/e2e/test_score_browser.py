"""The page of a score in a real browser: every plot drawn, nothing asked of the network."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from auditkit.report.score_page import score_html
from tests.score_sample import score_sample

PLOTS = (
    "How often latents fire",
    "Norms of activations, reconstructions and errors",
    "Relative errors",
    "Explained variance against L0",
    "Loss on reconstructions against L0",
    "On how many logits one latent acts",
    "k-sparse probing",
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("score") / "score.html"
    file.write_text(score_html(score_sample()), encoding="utf-8")
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_opens_quietly_and_shows_everything(
    browser: Browser, page_file: Path, width: int, scheme: str
) -> None:
    requests: list[str] = []
    troubles: list[str] = []
    page = browser.new_page(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # pyright: ignore[reportArgumentType]
    )
    page.on("request", lambda r: requests.append(r.url))
    page.on("console", lambda m: troubles.append(f"{m.type}: {m.text}"))
    page.on("pageerror", lambda e: troubles.append(f"error: {e}"))
    page.goto(page_file.as_uri(), wait_until="load")
    assert troubles == []
    assert [u for u in requests if not u.startswith("data:")] == [page_file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figures = page.locator("figure.plot")
    assert tuple(figures.locator("h3").all_inner_texts()) == PLOTS
    for i in range(len(PLOTS)):
        box = figures.nth(i).locator("svg").bounding_box()
        assert box is not None
        assert box["width"] > 250
        assert box["height"] > 150
    text = page.locator("body").inner_text()
    for said in ("0.8547 [0.842, 0.867]", "n/m [1]", "0.4485 †", "Stability over seeds †"):
        assert said in text
    assert "tiny <script>alert(1)</script> | sae" in text
    assert page.locator("script, img, iframe, object").count() == 0
    page.close()
