"""The page in headless Chromium: nothing breaks it, nothing is fetched, and everyone can use it."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cases.reports import HOSTILE, embeddings_of, material_of
from mover.report.page import build_report, write_page

WIDTHS = (1280, 390)


class Looked:
    """An open page, and everything that went wrong or was asked for while it was open."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.troubles: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))


@contextmanager
def opened(browser: Any, path: Path, width: int = 1280, **options: Any) -> Iterator[Looked]:
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    looked = Looked(context.new_page())
    looked.page.goto(path.as_uri())
    yield looked
    context.close()


def background(looked: Looked) -> str:
    return str(looked.page.evaluate("getComputedStyle(document.body).backgroundColor"))


LIGHT, DARK = "rgb(253, 253, 251)", "rgb(21, 24, 28)"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_word_of_complaint(browser: Any, page: Path, width: int, scheme: str) -> None:
    with opened(browser, page, width, color_scheme=scheme) as looked:
        looked.page.wait_for_function("[...document.images].every((image) => image.complete)")
        assert looked.page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
        assert looked.page.evaluate("document.documentElement.scrollWidth") <= width
        assert background(looked) == (LIGHT if scheme == "light" else DARK)
        assert looked.troubles == []
        assert [url for url in looked.requests if not url.startswith(("file:", "data:"))] == []
        assert len([url for url in looked.requests if url.startswith("file:")]) == 1


def test_markup_in_captions_ids_classes_and_names_is_text(browser: Any, page: Path) -> None:
    with opened(browser, page) as looked:
        assert looked.page.inner_text("h1") == HOSTILE
        assert looked.page.title() == f"{HOSTILE} – MOVER report"
        shown = looked.page.inner_text("#gallery")
        assert f"\n{HOSTILE}\n" in shown
        assert looked.page.locator(".caption", has_text="alert(1)").count() > 0
        assert (
            looked.page.locator("#tsne-class text", has_text="onerror").count() == 0
        )  # names of classes are cut short
        assert looked.page.locator("svg.chart text", has_text="</script></style>").count() > 0
        assert "</td><script>alert(2)</script>" in looked.page.inner_text(".settings")
        assert looked.page.evaluate("document.scripts.length") == 1
        assert looked.page.evaluate("document.querySelectorAll('img[onerror], [onload], [onclick]').length") == 0
        assert looked.troubles == []


def test_the_policy_keeps_out_what_should_get_in_all_the_same(browser: Any, page: Path) -> None:
    with opened(browser, page) as looked:
        looked.page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.broken = true";
                document.body.append(script);
                const image = document.createElement("img");
                image.src = "https://example.org/spy.png";
                document.body.append(image);
            }"""
        )
        looked.page.wait_for_timeout(100)
        assert looked.page.evaluate("window.broken") is None
        assert len(looked.troubles) == 2 and all("Content Security Policy" in text for text in looked.troubles)


def test_the_scheme_is_switched_from_the_keyboard_and_kept(browser: Any, page: Path) -> None:
    with opened(browser, page, color_scheme="light") as looked:
        button = looked.page.get_by_role("button", name="Dark")
        chart = "getComputedStyle(document.querySelector('.chart text')).fill"
        before = looked.page.evaluate(chart)
        assert button.get_attribute("aria-pressed") == "false"
        looked.page.keyboard.press("Tab")
        assert looked.page.evaluate("document.activeElement.textContent") == "Skip to the report"
        looked.page.keyboard.press("Tab")
        assert looked.page.evaluate("document.activeElement.id") == "scheme"
        assert looked.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        looked.page.keyboard.press("Enter")
        assert button.get_attribute("aria-pressed") == "true"
        assert background(looked) == DARK
        assert looked.page.evaluate(chart) != before
        looked.page.reload()
        assert background(looked) == DARK
        looked.page.keyboard.press("Tab")
        looked.page.keyboard.press("Tab")
        looked.page.keyboard.press("Space")
        assert background(looked) == LIGHT
        assert looked.troubles == []


def test_without_scripts(browser: Any, page: Path) -> None:
    with opened(browser, page, java_script_enabled=False, color_scheme="dark") as looked:
        assert not looked.page.is_visible("#scheme")
        assert looked.page.locator("article.query").count() == 12
        assert looked.page.locator("article.query").first.is_visible()
    with opened(browser, page, color_scheme="dark") as looked:
        assert looked.page.is_visible("#scheme")


def test_it_can_be_read_by_a_screen_reader(browser: Any, page: Path) -> None:
    with opened(browser, page) as looked:
        evaluate = looked.page.evaluate
        for role, count in (("main", 1), ("banner", 1), ("navigation", 1)):
            assert looked.page.get_by_role(role).count() == count
        levels = evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((h) => Number(h.tagName[1]))")
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        assert evaluate("document.documentElement.lang") == "en"
        pictures = evaluate(
            "[...document.querySelectorAll('svg:not([aria-hidden])')].map((s) => s.getAttribute('aria-label'))"
        )
        assert len(pictures) > 20 and all(label and len(label) > 20 for label in pictures)
        assert evaluate("[...document.images].every((image) => image.alt.length > 5)")
        assert evaluate(
            "[...document.querySelectorAll('table')].every((t) => t.caption && t.querySelectorAll('th').length)"
        )
        assert evaluate("[...document.querySelectorAll('th')].every((th) => ['col', 'row'].includes(th.scope))")
        assert evaluate("[...document.querySelectorAll('figure')].every((f) => f.querySelector('figcaption'))")
        ids = evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids))
        wanted = evaluate(
            """[...document.querySelectorAll('[href^="#"], [aria-labelledby], [clip-path], [mask]')].flatMap((e) => [
                e.getAttribute('href'), e.getAttribute('aria-labelledby') && '#' + e.getAttribute('aria-labelledby'),
                ...['clip-path', 'mask'].map((n) => (e.getAttribute(n) || '').replace('url(', '').replace(')', '')),
            ]).filter((r) => r && r.startsWith('#')).map((r) => r.slice(1))"""
        )
        assert len(wanted) > 20 and set(wanted) <= set(ids)
        assert evaluate("[...document.querySelectorAll('.scroll')].every((e) => e.tabIndex === 0)")


def test_the_skip_link_leads_past_the_contents(browser: Any, page: Path) -> None:
    with opened(browser, page) as looked:
        looked.page.keyboard.press("Tab")
        looked.page.keyboard.press("Enter")
        looked.page.wait_for_url("**#main")
        looked.page.keyboard.press("Tab")
        assert looked.page.evaluate("document.activeElement.closest('main') !== null")


def test_the_right_answer_is_marked_by_words(browser: Any, page: Path) -> None:
    with opened(browser, page) as looked:
        for article in looked.page.locator("article.query").all():
            right = article.locator(".hit.right")
            told = article.get_by_text("The right answer", exact=True)
            assert (right.count() > 0) != (told.count() > 0)
            for hit in right.all():
                assert "right" in hit.inner_text()


def test_on_paper(browser: Any, page: Path) -> None:
    with opened(browser, page, color_scheme="dark") as looked:
        looked.page.emulate_media(media="print")
        assert not looked.page.is_visible("nav") and not looked.page.is_visible("#scheme")
        assert background(looked) == LIGHT
        assert looked.page.pdf().startswith(b"%PDF")


def test_a_page_of_ids_and_numbers_alone(browser: Any, tmp_path: Path) -> None:
    notes = {"training": "Nothing is known.", "plans": "None were kept.", "gallery": "No manifest."}
    bare = material_of(embeddings_of(5), {}, notes=notes)
    path = tmp_path / "bare.html"
    write_page(build_report(bare, queries=4), path)
    with opened(browser, path, 390) as looked:
        for section, note in notes.items():
            assert note in looked.page.inner_text(f"#{section}")
        assert looked.page.locator("#gallery img").count() == 0
        assert "clip3" in looked.page.inner_text("#gallery")
        assert looked.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert looked.troubles == []
