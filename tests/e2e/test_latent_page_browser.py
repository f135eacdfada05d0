"""A latent's page in a real browser: drawn, silent, and hostile text shown as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from auditkit.core.fingerprint import to_plain
from auditkit.features import (
    LatentDirections,
    open_scope,
    profile_latent,
)
from auditkit.features.decoder import LogitEffect, LogitEffects, Neighbour
from auditkit.pipeline.features import NO_SAE
from auditkit.report.latent_page import latent_html
from auditkit.store import open_store
from tests.planted_store import HOSTILE, SEPARATING, planted_store

EFFECTS = tuple(LogitEffect(token_id=n, effect=1.0 / n) for n in range(1, 11))
WRITES = LatentDirections(
    nearest=tuple(Neighbour(latent=n, cosine=0.5 / n) for n in range(1, 11)),
    logits=LogitEffects(
        raised=EFFECTS, lowered=tuple(replace(e, effect=-e.effect) for e in EFFECTS)
    ),
)
WORDS = {1: HOSTILE, 2: " yes", 3: "   ", 4: "<img src=x onerror=alert(1)>"}

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("latent")
    made: dict[str, Path] = {}
    with open_store(planted_store(folder / "store.duckdb"), read_only=True) as store:
        scope = open_scope(store, recordings=(), roles=())
        for name, directions in (("whole", WRITES), ("without weights", NO_SAE)):
            profile = profile_latent(
                store, scope, SEPARATING, None, most=4, deciles=True, directions=directions
            )
            made[name] = folder / f"{name.replace(' ', '-')}.html"
            made[name].write_text(latent_html(to_plain(profile), WORDS), encoding="utf-8")
    return made


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("name", ["whole", "without weights"])
def test_the_page_opens_quietly_and_shows_everything(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str, width: int
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
    page.on("dialog", lambda d: (troubles.append(d.message), d.dismiss()))
    page.goto(pages[name].as_uri(), wait_until="load")
    assert troubles == []
    assert [u for u in requests if not u.startswith("data:")] == [pages[name].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    bars = page.locator("figure svg rect")
    assert bars.count() == 30
    tall = [box["height"] for i in range(30) if (box := bars.nth(i).bounding_box())]
    assert max(tall) > 20
    text = page.locator("body").inner_text()
    for heading in ("Values where it fires", "What it writes", "Highest", "At random", "Decile 10"):
        assert heading in text
    assert "<script>alert(1)</script>" in text
    assert "⟨U+202E⟩" in text
    assert "⟨U+001B⟩" in text
    assert page.locator("script, img, iframe, object").count() == 0
    fired = page.locator(".context .t.fired")
    assert fired.count() == page.locator(".context").count() > 8
    assert fired.first.inner_text().strip() == "yes"
    page.close()


def test_what_a_latent_writes_is_in_tables_beside_one_another(
    browser: Browser, pages: dict[str, Path]
) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(pages["whole"].as_uri())
    tables = page.locator(".writes table")
    assert tables.count() == 3
    tops = {round(box["y"]) for i in range(3) if (box := tables.nth(i).bounding_box())}
    assert len(tops) == 1
    raised = tables.nth(1).locator("tbody tr").all_inner_texts()
    assert raised[1].split() == ["␣yes", "0.500"]
    assert raised[2].split()[0] == "␣␣␣"
    assert raised[3].startswith("<img src=x onerror=alert(1)>")
    assert raised[4].split()[0] == "#5"
    page.set_viewport_size({"width": 390, "height": 900})
    tops = {round(box["y"]) for i in range(3) if (box := tables.nth(i).bounding_box())}
    assert len(tops) == 3
    page.goto(pages["without weights"].as_uri())
    assert "not measured: needs the SAE's weights" in page.locator("body").inner_text()
    page.close()
