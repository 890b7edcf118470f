"""The report as people meet it: opened from disk, wide and narrow, dark and light."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from browser.watching import Watched
from palate.comparison import compare
from palate.report.comparing import comparison_page
from palate.report.sweeping import sweep_page
from report.test_sweeping import setting

WIDTHS = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
WINDOWS = {
    f"{width}, {theme}": {"viewport": size, "color_scheme": theme}
    for width, size in WIDTHS.items()
    for theme in ("light", "dark")
}
everywhere = pytest.mark.parametrize("opened", WINDOWS.values(), ids=WINDOWS, indirect=True)


@everywhere
def test_it_opens_without_a_complaint_or_a_request(opened, report):
    assert opened.complaints == []
    assert opened.requests == [report.as_uri()]
    assert opened.page.evaluate("window.broken") is None


@everywhere
def test_every_chart_is_drawn_within_its_frame(opened):
    drawings = opened.page.locator(".drawing")
    assert drawings.count() > 8
    for place in range(drawings.count()):
        drawing = drawings.nth(place)
        assert drawing.locator("svg path").count() > 2
        frame, figure = drawing.bounding_box(), drawing.locator("svg.main-svg").first.bounding_box()
        assert figure["width"] <= frame["width"] + 1
        assert figure["height"] > 80


@everywhere
def test_nothing_is_wider_than_the_window(opened):
    width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert opened.page.evaluate(width) == 0
    opened.page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    assert opened.page.evaluate(width) == 0


def serious(page):
    """What axe-core finds serious or critical, everything unfolded."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    found = Axe().run(page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in grave]


@everywhere
def test_axe_finds_nothing_serious(opened):
    assert serious(opened.page) == []


@pytest.mark.parametrize("kind", ["sweep", "comparison"])
def test_the_other_pages_are_as_good(browser, report, tmp_path, kind):
    if kind == "sweep":
        negatives = [{"uniform": n} for n in (1, 5, 15)]
        page = sweep_page([setting({"align.negatives": n}, 0.1, 0.01) for n in negatives])
    else:
        page = comparison_page(compare([report.parent], stages=("sft", "aligned")))
    path = tmp_path / "page.html"
    path.write_text(page, "utf-8")
    window = browser.new_page(viewport=WIDTHS["phone"])
    watched = Watched(window, path)
    assert watched.complaints == []
    assert watched.requests == [path.as_uri()]
    assert window.locator(".drawing svg path").count() > 2
    assert serious(window) == []
    window.close()


def test_axe_sees_what_is_wrong(browser):
    """The check above could fail: axe finds a faint text and a nameless button."""
    page = browser.new_page()
    page.set_content(
        "<html lang=en><title>x</title><p style='color:#ddd'>faint</p><button></button>"
    )
    found = {one["id"] for one in Axe().run(page).response["violations"]}
    page.close()
    assert {"color-contrast", "button-name"} <= found


def test_a_users_lists_open_by_click_and_by_keyboard(opened):
    people = opened.page.locator(".person")
    assert people.count() == 20
    first, second = people.nth(0), people.nth(1)
    assert not first.get_by_text("After: aligned").is_visible()
    first.locator("summary").click()
    assert first.get_by_text("After: aligned").is_visible()
    assert first.locator("ol li").count() == 20
    first.locator("summary").focus()
    opened.page.keyboard.press("Tab")
    assert second.locator("summary").evaluate("(one) => one === document.activeElement")
    opened.page.keyboard.press("Enter")
    assert second.get_by_text("Before: sft").is_visible()
    opened.page.keyboard.press("Space")
    assert not second.get_by_text("Before: sft").is_visible()


def test_titles_that_are_markup_show_as_text(opened):
    opened.page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    title = opened.page.get_by_text("<script>window.broken = true</script>").first
    assert title.is_visible()


@pytest.mark.parametrize(
    ("opened", "other"),
    [({"color_scheme": "light"}, "dark"), ({"color_scheme": "dark"}, "light")],
    indirect=["opened"],
)
def test_the_theme_is_the_systems_until_it_is_chosen(opened, other):
    page = opened.page

    def colours():
        body = page.evaluate("getComputedStyle(document.body).backgroundColor")
        label = page.locator("#chart-stages .xtick text").first
        return body, label.evaluate("(one) => getComputedStyle(one).fill")

    before = colours()
    button = page.get_by_role("button", name=f"Use the {other} theme")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "(fill) => getComputedStyle(document.querySelector('#chart-stages .xtick text')).fill"
        " !== fill",
        arg=before[1],
    )
    after = colours()
    assert after[0] != before[0]
    page.emulate_media(color_scheme=other)
    assert colours() == after
    assert opened.complaints == []


def test_the_first_tab_skips_to_the_content(opened):
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    opened.page.keyboard.press("Enter")
    assert opened.page.evaluate("document.activeElement.id") == "main"


def test_without_scripts_the_numbers_are_there(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".verdict").is_visible()
    assert not page.locator(".drawing").first.is_visible()
    page.locator(".numbers summary").first.click()
    assert page.locator(".numbers table").first.is_visible()
    context.close()
