"""The page in a real browser: quiet, self-contained, as wide as the window, and usable with the keyboard."""

import shutil

import pytest
from report_rows import setting_of, write_search

from raysd.report.page import write_report
from raysd.storage.location import Location

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
LONG = "a_very_long_variant_name_" * 6
SHOWN = "[...document.querySelectorAll('.panels')].map(p => [...p.children].map(f => f.offsetParent !== null))"

ENLARGED = """[...document.querySelectorAll('.card img')].filter(i => i.offsetParent).map(i => {
  const before = i.offsetWidth; i.click(); const after = i.offsetWidth; i.click();
  return [before, after, i.offsetWidth, document.documentElement.scrollWidth <= innerWidth]; })"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a browser made of one page: widths, requests, messages, and which panels were shown."""
    browser = pytest.importorskip("browser")
    folder = tmp_path_factory.mktemp("browser")
    root = Location(str(folder / "root"))
    settings = [setting_of(variant, scale) for variant in ("name", LONG) for scale in (1.0, 2.0, 7.5)]
    write_search(root, folder / "clones", settings, name="x" * 120, prompt="{name} " + "y" * 300)
    url = f"file://{write_report(root).html}"

    async def steps(page):
        found = {"widths": {}, "colors": {}}
        for width, dark in ((400, False), (400, True), (1600, False), (1600, True)):
            await page.open(url, width, dark)
            await page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            found["widths"][width, dark] = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            found["colors"][dark] = await page.evaluate(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
            )
        found["before"] = await page.evaluate(SHOWN)
        await page.evaluate("document.querySelector('.tabs > input').focus()")
        await page.press("ArrowRight", 39)
        found["after"] = await page.evaluate(SHOWN)
        await page.evaluate("document.querySelectorAll('.labels')[1].children[2].click()")
        found["clicked"] = await page.evaluate(SHOWN)
        found["enlarged"] = await page.evaluate(ENLARGED)
        found["scrollable"] = await page.evaluate(
            "[...document.querySelectorAll('.card, .scroll')].filter(e => e.scrollWidth > e.clientWidth && "
            "e.tabIndex < 0).length"
        )
        found["links"] = await page.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
        found["images"] = await page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth])")
        return {**found, "requests": page.requests, "messages": page.messages, "url": url}

    return browser.visit(folder / "profile", steps)


def test_page_is_not_wider_than_a_phone_or_a_desktop(seen):
    assert all(content <= window for content, window in seen["widths"].values()), seen["widths"]


def test_dark_page_has_light_text(seen):
    assert seen["colors"][False] == ["rgb(255, 255, 255)", "rgb(29, 31, 35)"]
    assert seen["colors"][True] == ["rgb(21, 23, 26)", "rgb(232, 234, 237)"]


def test_the_page_requests_only_itself_and_logs_nothing(seen):
    assert {address for address in seen["requests"] if not address.startswith("data:")} == {seen["url"]}
    assert seen["messages"] == []


def test_one_panel_is_shown_and_an_arrow_key_shows_the_next(seen):
    assert seen["before"] == [[True, False], [True, False, False]]
    assert seen["after"] == [[False, True], [True, False, False]]


def test_a_click_on_a_guidance_scale_shows_its_grid(seen):
    assert seen["clicked"] == [[False, True], [False, False, True]]


def test_a_click_enlarges_an_image_and_another_one_shrinks_it(seen):
    assert len(seen["enlarged"]) > 3
    for before, after, again, fits in seen["enlarged"]:
        assert after > before == again and fits


def test_scrolling_parts_can_be_reached_with_the_keyboard(seen):
    assert seen["scrollable"] == 0


def test_every_image_can_be_decoded(seen):
    assert seen["images"] and all(complete and width for complete, width in seen["images"])
