"""Reports as a browser shows them: every figure, wide and narrow, light and dark, on paper."""

import shutil

import pytest

pytest.importorskip("playwright", reason="Playwright drives the browser")
pytest.importorskip("jinja2", reason="reports need Jinja2")
pytest.importorskip("PIL", reason="reports need Pillow")
import hand_made_reports as hand_made
from playwright import sync_api

from fastdrop.commands.report.composition import compose
from fastdrop.commands.report.page import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

# Texts of a picture that cover one another, or that leave it; turned ones are wider than they are.
CROWDED = """() => [...document.querySelectorAll("svg")].flatMap(picture => {
  const frame = picture.getBoundingClientRect();
  const texts = [...picture.querySelectorAll("text:not([transform])")];
  const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
  const found = [];
  boxes.forEach(([name, a], i) => {
    const leaves = a.left < frame.left - 2 || a.right > frame.right + 2;
    if (leaves) found.push(`${picture.id}: ${name} leaves it`);
    for (const [other, b] of boxes.slice(i + 1)) {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 1 && high > 4) found.push(`${picture.id}: ${name} covers ${other}`);
    }
  });
  return found;
})"""
SMALL = """() => [...document.querySelectorAll("main *, header *")].filter(element =>
  element.childNodes.length && [...element.childNodes].some(n => n.nodeType == 3 && n.data.trim())
  && !element.closest("svg") && parseFloat(getComputedStyle(element).fontSize) < 12
).map(element => element.outerHTML)"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["images", "table", "regression", "evil names"])
def address(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(render(compose(hand_made.CASES[request.param]())))
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """Open the report; whatever it asks for or complains of fails the test."""
    contexts, heard = [], []

    def open_it(size="desktop", scheme="light"):
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("dialog", lambda dialog: heard.append(dialog.message))
        page.on("request", lambda request: asked(request.url))
        page.goto(address)
        return page

    def asked(url):
        if url != address and not url.startswith("data:"):
            heard.append(url)

    yield open_it
    for context in contexts:
        context.close()
    assert heard == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_figure_is_seen(opened, size, scheme):
    page = opened(size, scheme)
    figures = page.locator("figure").all()
    assert len(figures) > 10
    for figure in figures:
        picture = figure.locator("svg, img").first
        assert picture.is_visible()
        box = picture.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 60
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert page.evaluate(CROWDED) == []
    assert page.evaluate(SMALL) == []


def test_numbers_open_with_the_keyboard(opened):
    page = opened("phone")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    numbers = page.locator("figure details").first
    assert not numbers.locator("table").is_visible()
    numbers.locator("summary").focus()
    page.keyboard.press("Enter")
    assert numbers.locator("table").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]


def test_on_paper(opened):
    page = opened("desktop", "dark")
    page.emulate_media(media="print", color_scheme="dark")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.pdf()[:5] == b"%PDF-"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="checks by axe-core")
    page = opened("desktop", scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("size", SIZES)
def test_cells_are_not_squeezed(browser, tmp_path, size):
    """What does not fit beside others is scrolled to; only long texts have several lines."""
    names = ("a name of a column that nobody would type a second time", "b", "c", *"defghijklmno")
    path = tmp_path / "report.html"
    path.write_bytes(render(compose(hand_made.of_table(names=names))))
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(path.as_uri())
    heights = page.evaluate(
        "[...document.querySelectorAll('#examples tr')].map(row => row.offsetHeight)"
    )
    page.close()
    assert heights
    assert 0 < max(heights) < 100
