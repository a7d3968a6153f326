"""Pages from blocks: what a reader and a browser see."""

import base64
from html.parser import HTMLParser

import pytest

from fluojax import report
from fluojax.report import Code, Figure, Heading, Note, Paragraph, Table

NASTY = '<script>alert("x")</script> & ](http://e.vil) |'
PNG = b"\x89PNG not a picture"
PAGE = [
    Heading("Scores <1>"),
    Paragraph(NASTY),
    Note("mind this"),
    Code("fluojax train <x>"),
    Table(("image", "F1"), [(NASTY, "0.5"), ("b", "-")]),
    Table(("a",), [("1",)], folded="more"),
    Figure("figures/a.png", PNG, 'a "figure"'),
]


class Reader(HTMLParser):
    """Tags with attributes, and the text between them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def attributes(self, wanted):
        return [attributes for tag, attributes in self.tags if tag == wanted]


def test_html_is_one_file_that_fetches_nothing():
    page = report.to_html("A <run>", PAGE)
    read = Reader(page)
    assert not read.open
    names = {tag for tag, _ in read.tags}
    assert not names & {"script", "link", "iframe", "object", "base", "form"}
    for _, attributes in read.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert "href" not in attributes
    (picture,) = read.attributes("img")
    kind, _, data = picture["src"].partition(",")
    assert (kind, base64.b64decode(data)) == ("data:image/png;base64", PNG)
    assert picture["alt"] == 'a "figure"'
    policy = [a["content"] for a in read.attributes("meta") if "http-equiv" in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_html_shows_names_as_they_are():
    read = Reader(report.to_html(NASTY, PAGE))
    text = "".join(read.text)
    assert text.count(NASTY) == 4  # title, headline, paragraph, table
    assert "fluojax train <x>" in text


def test_html_fits_a_phone_and_figures_can_be_enlarged():
    read = Reader(report.to_html("t", PAGE))
    (view,) = [a for a in read.attributes("meta") if a.get("name") == "viewport"]
    assert view["content"] == "width=device-width, initial-scale=1"
    assert len(read.attributes("label")) == len(read.attributes("input")) == 1
    assert len(read.attributes("details")) == 1


def test_markdown_holds_the_same_with_pictures_by_name():
    page = report.to_markdown("A <run>", PAGE)
    assert page.startswith("# A &lt;run>\n\n## Scores &lt;1>\n")
    assert "<script" not in page and " ](http" not in page
    assert '![a "figure"](figures/a.png)' in page
    assert "    fluojax train <x>" in page
    lines = page.splitlines()
    start = lines.index("| image | F1 |")
    assert lines[start + 1] == "| --- | --- |"
    assert lines[start + 3] == "| b | - |"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("dice_loss", "dice_loss"),
        ("_masks_", "\\_masks\\_"),
        ("a|b", "a\\|b"),
        ("![x](y)", "!\\[x\\](y)"),
        ("two\nlines", "two lines"),
        ("<b> & `c`", "&lt;b> &amp; \\`c\\`"),
    ],
)
def test_names_are_plain_in_markdown(name, written):
    assert report.escape(name) == written


def test_both_pages_and_the_figures_are_written(tmp_path):
    report.write_pages(tmp_path, "t", PAGE)
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"report.md", "report.html", "figures/a.png"}
    assert (tmp_path / "figures/a.png").read_bytes() == PNG
