"""The page of an audit: complete, escaped, self-contained, small, the same from JSON."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from contracts.errors import UserError
from evaluation import report
from evaluation.interval_plot import IntervalPlot
from evaluation.number_format import MISSING, number
from evaluation.report import FindingRow
from evaluation.results import Answer, AuditResult, Finding

PNG = b"\x89PNG\r\n\x1a\n"
VOID = {"meta", "img", "br", "line", "rect", "circle", "path"}
NASTY = '<script>alert("a & b")</script>'


class Page(HTMLParser):
    """Elements of a page, that all are closed in order, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.css = ""
        self.feed(page)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.css += data
        else:
            self.text += data + " "


def finding(name: str, value: float, half: float = 0.1, **more: object) -> Finding:
    """A finding with a symmetric interval."""
    return Finding(name, f"Label of {name}", "um2/s", value, value - half, value + half, **more)  # type: ignore[arg-type]


@pytest.fixture
def audit() -> AuditResult:
    """All verdicts, NaN, infinity, yardsticks, details and text that is not HTML."""
    regions = {f"region {i} {NASTY}": (i / 10, i / 10 - 1, i / 10 + 1) for i in range(30)}
    failing = finding(
        "shift",
        12.345,
        tolerance=1.0,
        p=0.00332,
        verdict="fail",
        yardsticks={"real": 0.0213, f"copies {NASTY}": -math.inf, "gaussian": math.nan},
        details=regions,
    )
    small = finding("spread", -0.456, 3, tolerance=0.5, p=0.7, verdict="n too small", needed=123)
    absent = Finding(
        "absent", NASTY, "", math.nan, math.nan, math.nan, 1.0, verdict="n too small", needed=20
    )
    passing = finding("near", 0.0078, tolerance=0.2, p=1.0, verdict="pass")
    counted = Finding(
        "copies", "Copies", "", 2, 2, 2, 0.0, verdict="fail", details={"volume 3": (0.9, 0.9, 0.9)}
    )
    return AuditResult(
        f"base {NASTY}",
        {"synthetic": 64, "test": 36, "train": 86},
        (
            Answer("fidelity", "fail", f"Differs: {NASTY}.", (failing,)),
            Answer("diversity", "n too small", "Too few.", (small, absent)),
            Answer("anatomy", "pass", "No difference.", (passing,)),
            Answer("privacy", "fail", "Two copies.", (counted,)),
            Answer("utility", "not measured", "Nothing.", (finding("gain", -0.31),)),
        ),
        {"remote": "https://example.org/x", "settings": {"seed": 7, "maps": ["fa", "md"]}},
    )


def test_every_number_and_verdict_is_there(audit: AuditResult) -> None:
    page = Page(report.html(audit))
    for answer in audit.answers:
        assert answer.words in page.text
        assert answer.verdict in page.text
        for one in answer.findings:
            assert one.label in page.text
            assert number(one.value) in page.text
            for value in one.yardsticks.values():
                assert number(value) in page.text
            for part, (value, _, _) in one.details.items():
                assert part in page.text
                assert number(value) in page.text
    for text in ("64", "36", "86", "12.3 µm²/s", "[12.2, 12.4]", "123", MISSING, "fa, md"):
        assert text in page.text


def test_verdicts_are_told_first_and_not_by_colour_alone(audit: AuditResult) -> None:
    page = Page(report.html(audit))
    assert page.text.index("n too small") < page.text.index("Tolerance p")
    summary = page.text[: page.text.index("Dot and line")]
    assert "Fails: fidelity, privacy." in summary
    for answer in audit.answers:
        assert f"{answer.verdict} {answer.question.capitalize()}" in summary
        assert answer.words in summary
    # What decides most is beside the verdict: what needs the most volumes, not what is missing.
    assert number(-0.456) in summary
    assert "section.summary { break-after: page; }" in page.css


def test_text_is_escaped(audit: AuditResult) -> None:
    page = report.html(audit, {NASTY: PNG})
    assert NASTY not in page
    parsed = Page(page)
    assert not parsed.open
    assert "script" not in {tag for tag, _ in parsed.elements}
    assert NASTY in [attributes.get("alt") for _, attributes in parsed.elements]


def test_nothing_is_loaded(audit: AuditResult) -> None:
    page = Page(report.html(audit, {"a": PNG}))
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for key in ("src", "href", "srcset", "xlink:href", "data", "action"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/png;base64,"))
        assert not [key for key in attributes if key.startswith("on")]
    assert "url(" not in page.css
    assert "@import" not in page.css


def test_same_page_from_json(audit: AuditResult) -> None:
    again = AuditResult.from_json(json.loads(json.dumps(audit.to_json())))
    assert report.html(again) == report.html(audit)


def test_too_large_a_page_is_refused(audit: AuditResult, tmp_path: Path) -> None:
    path = tmp_path / "reports" / "page.html"
    report.write(path, audit, {"small": PNG})
    kept = path.read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"2\.\d\d MB, at most 2 MB .* 1 figures take 2\.67 MB"):
        report.write(path, audit, {"large": PNG + bytes(report.LIMIT)})
    with pytest.raises(UserError, match="expected PNG"):
        report.html(audit, {"text": b"<svg>"})
    assert path.read_text(encoding="utf-8") == kept == report.html(audit, {"small": PNG})
    assert list(path.parent.iterdir()) == [path]


def test_a_stop_leaves_the_old_page(
    audit: AuditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    report.write(path, audit)

    def stopped(self: Path, text: str, encoding: str) -> int:
        self.write_bytes(text[:100].encode())
        raise KeyboardInterrupt

    kept = path.read_bytes()
    monkeypatch.setattr(Path, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        report.write(path, audit)
    assert path.read_bytes() == kept


def test_an_audit_without_anything_is_a_page() -> None:
    page = Page(
        report.html(AuditResult("empty", {}, (Answer("utility", "not measured", "No.", ()),)))
    )
    assert not page.open
    assert "Not asked: fidelity, diversity, anatomy, privacy." in page.text


@pytest.mark.parametrize(
    ("value", "scope", "text"),
    [
        (8.0651, 0, "8.07"),
        (-0.5, 0, "\N{MINUS SIGN}0.500"),
        (999.6, 0, "1000"),
        (123456.0, 0, "123000"),
        (1.5e-5, 0, "1.50 \N{MULTIPLICATION SIGN} 10⁻⁵"),
        (-1.5e12, 0, "\N{MINUS SIGN}1.50 \N{MULTIPLICATION SIGN} 10¹²"),
        (1e-17, 1, "0"),
        (0.0, 0, "0"),
        (math.inf, 0, "∞"),
        (math.nan, 0, "not computed"),
    ],
)
def test_numbers_have_three_digits(value: float, scope: float, text: str) -> None:
    assert number(value, scope) == text


@pytest.mark.parametrize("value", [-1e9, -1.0, 0.0, 0.7, 1e9, math.nan, math.inf])
@pytest.mark.parametrize("tolerance", [None, 0.5])
def test_plots_stay_inside_and_keep_the_order(value: float, tolerance: float | None) -> None:
    others = {"a": -1e6, "b": -0.2, "c": -0.2, "d": value}
    plot = IntervalPlot.from_numbers((value, value - 1, value + 1), tolerance, None, others)
    drawn = [x for m in plot.marks for x in (m.x, m.letter_x)] + list(plot.whisker or ())
    assert all(0 <= x <= plot.width for x in drawn)
    assert math.isnan(value) == (plot.dot is None)
    letters = [m.letter_x for m in plot.marks]
    assert all(b - a >= 7.9 for a, b in pairwise(letters))
    if plot.dot is not None and value < 0:
        assert plot.dot < plot.zero
    if tolerance:
        assert plot.band == (plot.zero - 41.5, plot.zero + 41.5)


def test_colours_have_enough_contrast() -> None:
    css = Path(report.__file__).with_name(report.TEMPLATE).read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.S)
    assert len(blocks) == 2
    for block in blocks:
        colours = dict(re.findall(r"--(\w+): (#\w{6});", block))
        for text in ("ink", "soft", "link", "pass", "fail", "small", "none"):
            for ground in ("paper", "panel"):
                assert contrast(colours[text], colours[ground]) >= 4.5  # WCAG 2.2 AA, text
        for drawn in ("ink", "edge", "link"):
            assert contrast(colours[drawn], colours["paper"]) >= 3  # and graphics
        assert contrast(colours["ink"], colours["band"]) >= 3


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_value_is_drawn_as_far_from_the_middle_as_from_chance() -> None:
    alike = finding("auc", 0.5, tolerance=0.2, chance=0.5, yardsticks={"real": 0.6})
    apart = finding("auc", 0.6, tolerance=0.2, chance=0.5)
    shifted = finding("shift", 0.1, tolerance=0.2)
    one, two, three = (FindingRow.from_finding(f, {"real": "R"}) for f in (alike, apart, shifted))
    assert one.plot.dot == pytest.approx(one.plot.zero)
    assert two.plot.dot == pytest.approx(three.plot.dot)
    assert one.plot.marks[0].x == pytest.approx(three.plot.dot)
    assert (number(0.5) in one.value, one.tolerance[:7]) == (True, "0.5 \u00b1 0")
