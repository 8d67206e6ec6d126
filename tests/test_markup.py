"""Claims about pix2pix.markup."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from pix2pix import markup

HOSTILE = "<script>alert(1)</script>\n\"'><img src=x onerror=alert(2)>&amp;\u202egpj.\ud800\x00é"


class Seen(HTMLParser):
    """What a browser would make of a page: its tags, their attributes' names, its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.words = set[str](), set[str](), ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_hostile_name_is_shown_and_does_nothing() -> None:
    shown = Seen(markup.text(HOSTILE)).words
    assert shown.startswith("<script>alert(1)</script>\\n\"'><img src=x onerror=alert(2)>&amp;")
    assert shown.endswith("\\u202egpj.\\ud800\\x00é")


@given(st.text(st.characters()))
def test_no_text_makes_a_tag_or_leaves_an_attribute(value: str) -> None:
    html = f'<p title="{markup.text(value)}">{markup.text(value)}</p>'
    seen = Seen(html)
    assert (seen.tags, seen.attributes) == ({"p"}, {"title"})
    assert html.encode().isascii() or html.isprintable()


def test_a_long_text_is_cut() -> None:
    assert markup.text("a" * 1000, 5) == "aaaa…"
    assert markup.text("aaaaa", 5) == "aaaaa"


def test_a_page_asks_for_nothing_from_elsewhere_and_has_no_script() -> None:
    parts = [
        markup.figures([(HOSTILE, HOSTILE)]),
        markup.table((HOSTILE, "#n"), [(HOSTILE, 1)]),
        markup.plot(b"png", HOSTILE),
        markup.crops(HOSTILE, (b"png", HOSTILE), 320),
        markup.section(HOSTILE, markup.note(HOSTILE)),
    ]
    html = markup.page(HOSTILE, HOSTILE, (markup.GOOD, HOSTILE), parts).decode()
    seen = Seen(html)
    assert seen.tags.isdisjoint({"script", "link", "iframe", "object", "a", "base"})
    assert not any(name.startswith("on") for name in seen.attributes)
    assert html.count("src=") - html.count("src=x") == html.count('src="data:image/png;base64,')
    assert "default-src 'none'" in html


def test_what_is_empty_leaves_no_heading() -> None:
    assert markup.section("Failures", markup.table(("a",), []), "") == ""
