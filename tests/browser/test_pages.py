"""The pages in a real browser, opened as files: whole, still, legible at every width, and usable by all."""

import re
from typing import Any

import pytest

from tests.browser.conftest import MISSING, NAMES


def column(page: Any, number: int) -> list[str]:
    """Texts of one column of the first table, from above."""
    return page.locator("table").first.locator(f"tbody tr > :nth-child({number})").all_inner_texts()


def numbers(cells: list[str]) -> list[float]:
    return [float(cell.split(" ±")[0].replace("−", "-").replace(",", "")) for cell in cells if cell != "—"]


def test_a_page_asks_for_nothing_and_complains_of_nothing(opened, url):
    page = opened(url)
    assert page.complaints == []
    assert [asked for asked in page.asked if not asked.startswith("data:")] == [url]


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_does_not_scroll_sideways(opened, url, width):
    page = opened(url, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = "nodes => nodes.filter(n => n.getBoundingClientRect().right > innerWidth + 1).map(n => n.outerHTML)"
    assert page.locator("body > *, main > *, section > *:not(.scroll), figure > *").evaluate_all(wide) == []


def test_the_comparison_table_fits_a_screen(opened, url):
    inside, outside = opened(url).locator(".scroll").first.evaluate("node => [node.scrollWidth, node.clientWidth]")
    assert inside <= outside


def test_columns_are_sorted_by_a_click(opened, report_url):
    page = opened(report_url)
    before = column(page, 1)
    heading = page.locator("table").first.locator("thead th").nth(1)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    rows = column(page, 2)
    values = numbers(rows[:-3])
    assert values == sorted(values)
    assert len(values) == 3 + len(NAMES) - 1
    assert all(row.startswith("not trained") for row in rows[-3:])
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    rows = column(page, 2)
    assert numbers(rows[:-3]) == sorted(values, reverse=True)
    assert all(row.startswith("not trained") for row in rows[-3:])
    assert sorted(column(page, 1)) == sorted(before)


def test_columns_are_sorted_by_the_keyboard(opened, report_url):
    page = opened(report_url)
    headings = page.locator("table").first.locator("thead th")
    place = next(n for n, text in enumerate(headings.all_inner_texts()) if text.startswith("parameters"))
    headings.nth(0).get_by_role("button").focus()
    for _ in range(place):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert headings.nth(place).get_attribute("aria-sort") == "ascending"
    values = numbers(column(page, place + 1)[: 3 + len(NAMES) - 1])
    assert values == sorted(values)
    page.keyboard.press("Space")
    assert headings.nth(place).get_attribute("aria-sort") == "descending"
    values = numbers(column(page, place + 1)[: 3 + len(NAMES) - 1])
    assert values == sorted(values, reverse=True)
    assert headings.nth(0).get_attribute("aria-sort") == "none"


def test_a_page_is_whole_without_its_script(opened, report_url):
    page = opened(report_url, java_script_enabled=False)
    assert page.get_by_role("button").count() == 0
    assert [name for name in column(page, 1) if name in NAMES] == [name for name in NAMES if name != MISSING]


def test_the_keyboard_reaches_the_results_first(opened, report_url):
    page = opened(report_url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    page.keyboard.press("Enter")
    assert page.url.endswith("#results")


def test_no_image_is_blank(opened, report_url):
    """Each is drawn on a canvas, and its pixels are not all the same."""
    page = opened(report_url)
    different = """async images => Promise.all(images.map(async image => {
        await image.decode();
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [60, 60];
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0, 60, 60);
        const pixels = new Uint32Array(context.getImageData(0, 0, 60, 60).data.buffer);
        return [image.alt, image.naturalWidth, new Set(pixels).size];
    }))"""
    images = page.locator("img").evaluate_all(different)
    assert len(images) > 4 + 4 * (len(NAMES) - 1)
    for alt, width, colours in images:
        assert alt
        assert width > 100
        assert colours > 5, alt


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_has_no_serious_fault_of_accessibility(opened, url, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(url, color_scheme=scheme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    rules = {"runOnly": ["color-contrast"]} if dark else {}  # the rest of the page is the same
    found = Axe().run(page, options=rules).response["violations"]
    assert [(one["id"], one["impact"]) for one in found if one["impact"] in ("serious", "critical")] == []


def test_a_page_is_printed_light_and_uncut(opened, report_url):
    page = opened(report_url, color_scheme="dark")
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF-")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 40
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 without its margins, in CSS pixels
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 35, 41)"
    widths = page.locator("table, pre, figure").evaluate_all("nodes => nodes.map(n => n.getBoundingClientRect().right)")
    assert max(widths) <= 689
