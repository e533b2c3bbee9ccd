"""The report's page, made from invented content: as text, and in a real browser."""

import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from nested_lookahead.analysis.opening import opening
from nested_lookahead.analysis.page import Content, Finding, Group, Picture, Section, Verdict, page

HOSTILE = "<script>alert(1)</script>"
WORDS = ["better", "worse", "equivalent", "unresolved", "suggestive: better", "suggestive: worse"]
COLOURS = ["#000000", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#00543D"]


def made_groups(count):
    names = ["SGD", "Adam", "Lookahead (SGD)", "Nested Lookahead (Adam)", "Multilayer Lookahead (SGD)", HOSTILE]
    return [
        Group(f"{i:08x}", f"{names[i % 6]} k=5 α=0.5 s={i} h=0.5 pullback=reset", COLOURS[i % 6]) for i in range(count)
    ]


def svg_of(figure):
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "same in every figure"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def curves(groups, name, width=7.0, seeds=5):
    with mpl.rc_context({"font.size": 8, "figure.constrained_layout.use": True}):
        figure = Figure(figsize=(width, 3.0))
        ax = figure.subplots()
        random = np.random.default_rng(0)
        rows = []
        for i, group in enumerate(groups):
            runs = 90 + i - 20 * np.exp(-np.arange(20) / 4) + random.normal(0, 0.3, (seeds, 20))
            for j, run in enumerate([*runs, runs.mean(0)]):
                look = {"lw": 1.6} if j == seeds else {"lw": 0.5, "alpha": 0.25}
                ax.plot(run, color=group.colour, gid=f"g-{group.id}-{j}", **look)
            last = {"gid": f"g-{group.id}-{seeds + 1}", "color": group.colour, "fontsize": 5, "annotation_clip": False}
            ax.annotate(group.label[:20], (19.4, runs.mean(0)[-1]), **last)
            rows.append({"group": group.id, "epoch": 20, "accuracy": runs.mean(), "half_width": -0.1 * i, "n": seeds})
        ax.axhspan(90, 91, color="0.9", rasterized=True)  # an <image>
        ax.set(xlabel="epoch", ylabel="test accuracy (%)")
    words = f"{len(groups)} settings over 20 epochs; the best ends at 93%"
    return Picture(
        name, name.replace("_", " ").capitalize(), f"Mean of {seeds} seeds.", words, pd.DataFrame(rows), svg_of(figure)
    )


def made_section(name="digits, cnn, 20 epochs, batch 64", count=6, figures=3):
    groups = made_groups(count)
    labels = [group.label for group in groups]
    comparisons = pd.DataFrame(
        {
            "group": [group.id for group in groups],
            "method": labels,
            "baseline": "Lookahead (SGD) k=5 α=0.5",
            "n": 5,
            "difference (points)": [f"{0.3 * i - 0.85:+.2f} [−2.40, +0.70]".replace("-", "−") for i in range(count)],
            "p (Holm)": [[0.04, 1.0, np.nan, 0.0001, 0.5, 0.2][i % 6] for i in range(count)],
            "verdict": [WORDS[i % 6] for i in range(count)],
            "seeds needed": [np.nan if i % 2 else 12.0 + i for i in range(count)],
        }
    )
    plain = pd.DataFrame(
        {"method": labels, "settings": "k=5 α=0.5 s=5 h=0.5", "n": 5, "test accuracy %": "97.20 ± 0.41"}
    )
    return Section(
        name=name,
        verdicts=[
            Verdict(WORDS[i % 6], f"{label}: 0.85 points, 95% CI [−2.40, +0.70].", groups[i].id)
            for i, label in enumerate(labels)
        ],
        checks=[
            Finding("error", f"the same configuration and seed occurs twice: {'/a/long/path' * 12}"),
            Finding("warning", "code versions differ: 0123abc, 4567def"),
        ],
        comparisons=comparisons,
        results=plain,
        budget=pd.DataFrame({"method": labels, "settings tried": 9, "epochs": 20, "CPU hours": 0.123456}),
        settings=pd.DataFrame(
            {"setting": ["optimizer.k", "optimizer.inner.momentum"], "values": ["3, 5, 10", HOSTILE]}
        ),
        figures=[curves(groups, f"figure_{i}", 3.4 if i == 2 else 7.0) for i in range(figures)],
        groups=groups,
    )


def made_content(*sections):
    return Content(
        title="What 30 runs of digits show",
        opening=[Verdict(one.word, one.sentence) for section in sections for one in section.verdicts[:1]],
        command=f"python analyze.py outputs/{'a' * 90} --baseline lookahead --delta 0.5",
        created="2026-01-01 12:00 UTC",
        versions={"nested-lookahead": "0.1.0 (commit 0123abc)", "python": "3.11.2"},
        sections=sections,
        left_out=pd.DataFrame({"path": [f"outputs/{HOSTILE}/seed=3"], "reason": ["a torn last line"]}),
    )


@pytest.fixture(scope="module")
def content():
    return made_content(made_section(), made_section("mnist1d, mlp, 10 epochs, batch 64", count=3, figures=1))


@pytest.fixture(scope="module")
def text(content):
    return page(content)


VOID = {"meta", "input", "link", "br", "hr", "img"}


class Reader(HTMLParser):
    """Elements in order, and an error at a tag that is not closed in its place."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.words, self.ids, self.references = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.elements.append((tag, dict(attrs)))
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            if key in ("aria-labelledby", "for"):
                self.references += value.split()
            if key in ("href", "xlink:href") and value.startswith("#"):
                self.references.append(value[1:])
            self.references += re.findall(r"url\(#([^)]*)\)", value or "")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element, line {self.getpos()[0]}"

    def handle_data(self, data):
        self.words.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_ids_are_unique_and_every_reference_resolves(text):
    reader = read(text)
    assert len(reader.ids) == len(set(reader.ids)) > 100
    assert len(reader.references) > 100
    assert set(reader.references) <= set(reader.ids)


def test_two_artists_of_one_gid_do_not_share_an_id():
    figure = Figure()
    ax = figure.subplots()
    ax.plot([1, 2], gid="g-a-1")
    ax.plot([2, 1], gid="g-a-1")
    ax.plot([2, 2], gid="g-a-b-1")
    section = replace(made_section(figures=0), groups=[Group("a", "SGD", "#000000"), Group("a-b", "Adam", "#009E73")])
    picture = Picture("twice", "Twice", "", "", pd.DataFrame(), svg_of(figure))
    reader = read(page(made_content(replace(section, figures=[picture]))))
    assert len(reader.ids) == len(set(reader.ids))
    assert [a["data-group"] for _, a in reader.elements if "data-group" in a] == ["a", "a", "a-b"]


def test_every_figure_has_words_and_the_numbers_behind_it(text, content):
    pictures = [picture for section in content.sections for picture in section.figures]
    drawings = [attributes for tag, attributes in read(text).elements if tag == "svg"]
    assert [(d["role"], d["aria-label"]) for d in drawings] == [("img", picture.alt) for picture in pictures]
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert len(figures) == len(pictures)
    for figure, picture in zip(figures, pictures, strict=True):
        rows = re.search(r"<details>.*<tbody>(.*)</tbody>.*</details>", figure, re.DOTALL)[1].count("<tr")
        assert rows == len(picture.table)
        assert f"<figcaption>{picture.caption}</figcaption>" in figure


def test_what_comes_from_runs_stays_text(text):
    assert text.count("<script") == 1
    assert html.escape(HOSTILE) in text
    assert HOSTILE in "".join(read(text).words)


def test_a_drawing_loses_what_could_act_or_load():
    svg = """<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/svg11.dtd">
    <svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 100 50">
    <metadata>m</metadata><style>body {display: none}</style><script>evil()</script>
    <foreignObject><b>evil</b></foreignObject><image xlink:href="https://example.org/x.png" onload="evil()"/>
    <g id="a b" onclick="evil()"><use xlink:href="#a b"/></g><use href="#absent"/>
    <path d="M 1.23456 -2.00049&#10;L 10 1e-05" clip-path="url(#a b)"/></svg>"""
    section = replace(made_section(figures=0), figures=[Picture("x", "X", "", "words", pd.DataFrame(), svg)])
    drawing = re.search(r"<svg.*</svg>", page(made_content(section)), re.DOTALL)[0]
    assert not re.search(r"evil|display|example|metadata|DOCTYPE|<\?xml|xmlns", drawing)
    assert '<g id="s1-f1-0"><use href="#s1-f1-0" /></g>' in drawing
    assert '<path d="M 1.23 -2.00 L 10 1e-05" clip-path="url(#s1-f1-0)" />' in drawing


def test_tables_show_numbers_as_people_write_them():
    table = pd.DataFrame({"method": list("abcdef"), "x": [-0.5, -0.0, np.nan, np.inf, 1234567.0, 1e-5]})
    section = replace(made_section(figures=0), results=table)
    rows = re.search(r'aria-label="Results.*?<tbody>(.*?)</tbody>', page(made_content(section)), re.DOTALL)[1]
    assert re.findall(r"<td class=n>(.*?)</td>", rows) == ["−0.5", "0", "–", "∞", "1234567", "1e-05"]


def test_a_long_table_is_cut_and_says_so():
    picture = replace(curves(made_groups(1), "long"), table=pd.DataFrame({"epoch": range(1000)}))
    text = page(made_content(replace(made_section(figures=0), figures=[picture])))
    assert "The first 400 rows; 600 more are not on this page." in text


def test_nothing_to_show_is_said():
    empty = pd.DataFrame()
    none = Section("digits", [], [], empty, empty, empty, empty, [], [])
    read(page(made_content()))
    text = page(replace(made_content(none), left_out=pd.DataFrame({"path": [], "reason": []})))
    read(text)
    assert "These runs allow no comparison." in text
    assert "Left out" not in text


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

# A headless window is never narrower than 500 px, a frame is as narrow as it is told.
FRAME = """<!doctype html><pre id="told"></pre><script>
addEventListener("message", event => document.getElementById("told").textContent = event.data);</script>
<iframe src="{page}" width="{width}" height="900" style="border: 0"></iframe>"""

PROBE = """<script>
const errors = [], $ = selector => document.querySelector(selector);
addEventListener("error", event => errors.push(event.message));
addEventListener("securitypolicyviolation", event => errors.push(event.blockedURI));
window.alert = () => errors.push("a script from the content ran");
addEventListener("load", () => setTimeout(() => {
  try { answer = (() => { %s })(); } catch (error) { errors.push(String(error)); answer = null; }
  parent.postMessage(JSON.stringify({answer, errors, width: innerWidth}), "*");
}, 50));
let answer;
</script>"""


def ask(text, folder, script, width=1400, dark=False):
    """Open the page in a frame, run ``script`` (the body of a function) there, and return what it returns."""
    probe = PROBE % script
    # The page's own policy would stop the probe's script: that one line gives way, the rest of it stays.
    open_to_probe, changed = re.subn(r"script-src 'sha256-[^']*'", "script-src 'unsafe-inline'", text)
    assert changed == 1
    (folder / "page.html").write_text(open_to_probe.replace("<title>", probe + "<title>", 1), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(page="page.html", width=width))
    dom, errors = browse(folder / "frame.html", width, "--dump-dom", dark=dark)
    told = json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)[1]))
    assert told["errors"] == []
    assert errors == []
    assert told["width"] == width
    return told["answer"]


def browse(path, width, *options, dark=False):
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--window-size={max(width, 500)},1000",
    ]
    command += ["--virtual-time-budget=3000", "--enable-logging=stderr", f"--user-data-dir={path.parent / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", *(["--force-dark-mode"] if dark else []), *options]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@browser
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_no_wider_than_its_window(text, tmp_path, width):
    found = ask(
        text,
        tmp_path,
        """document.querySelectorAll("details").forEach(details => details.open = true);
        const wide = [...document.querySelectorAll("main *:not(.box *)")]
          .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5);
        return {document: document.documentElement.scrollWidth, wide: wide.map(e => e.outerHTML.slice(0, 80)),
          drawing: [...document.querySelectorAll("svg")].map(e => e.getBoundingClientRect().width)}""",
        width,
    )
    assert found["wide"] == []
    assert found["document"] <= width
    assert min(found["drawing"]) > 300


@pytest.mark.slow
@browser
def test_toggles_hide_a_group_and_no_other(text, tmp_path):
    found = ask(
        text,
        tmp_path,
        """const seen = group => [...document.querySelectorAll(`#s1 [data-group="${group}"]`)]
          .filter(e => getComputedStyle(e).display !== "none").length;
        const box = $('#s1 input[value="00000001"]'), told = () => $("#s1 .shown").textContent;
        const before = [seen("00000000"), seen("00000001"), told()];
        box.click();
        const hidden = [seen("00000000"), seen("00000001"), told()];
        const elsewhere = document.querySelectorAll("#s2 .off").length;
        $('#s1 [data-show="none"]').click();
        const none = [seen("00000000"), seen("00000001"), told()];
        $('#s1 [data-show="all"]').click();
        const all = [seen("00000000"), seen("00000001"), told()];
        $("#s1 .toggles").open = true;
        box.focus();
        return {before, hidden, elsewhere, none, all, dim: [...new Set([...document.querySelectorAll("#s1 .dim")]
          .map(e => e.dataset.group))].sort()}""",
    )
    drawn = 3 * 7  # in each of three figures: five runs, their mean, its name
    assert found["before"] == found["all"] == [drawn, drawn, "all 6 shown"]
    assert found["hidden"] == [drawn, 0, "5 of 6 shown"]
    assert found["elsewhere"] == 0
    assert found["none"] == [0, 0, "0 of 6 shown"]
    assert found["dim"] == ["00000000", "00000002", "00000003", "00000004", "00000005"]


@pytest.mark.slow
@browser
@pytest.mark.parametrize("width", [390, 1400])
def test_the_result_is_seen_first(text, tmp_path, width):
    found = ask(
        text,
        tmp_path,
        """const box = $(".opening").getBoundingClientRect(), badge = $(".opening .badge").getBoundingClientRect();
        return [$("h1").textContent, $(".opening").textContent.trim(), box.bottom, box.right, badge.right]""",
        width,
    )
    title, said, bottom, right, badge = found
    assert title == "What 30 runs of digits show"
    assert said.startswith("better SGD k=5")
    assert bottom < 500
    assert max(right, badge) <= width


@pytest.mark.slow
@browser
def test_a_filter_leaves_the_methods_with_all_its_words(text, tmp_path):
    found = ask(
        text,
        tmp_path,
        """const seen = selector => [...document.querySelectorAll(selector)]
          .filter(e => getComputedStyle(e).display !== "none").length;
        const told = () => [$("#s1 .shown").textContent, seen("#s1 li[data-of]"), seen("#s1 .chips label"),
          seen('#s1 table[aria-label^="Comparisons"] tr[data-of]'), seen("#s2 li[data-of]")];
        const type = words => { const find = $("#s1 [type=search]");
          find.value = words; find.dispatchEvent(new Event("input")); return told(); };
        return [told(), type("LOOKAHEAD adam"), type("s=1 k=5"), type("nothing"), type("")]""",
    )
    assert found[0] == found[4] == ["all 6 shown", 6, 6, 6, 3]
    assert found[1] == found[2] == ["1 of 6 shown", 1, 1, 1, 3]
    assert found[3] == ["0 of 6 shown", 0, 0, 0, 3]


def test_tooltips_have_values():
    group = Group("a", "SGD", "#000000", "test accuracy 97.20 ± 0.41; n = 5")
    figure = Figure()
    figure.subplots().plot([1, 2], gid="g-a-1")
    section = replace(made_section(figures=0), groups=[group])
    plain = Picture("one", "One", "", "", pd.DataFrame(), svg_of(figure))
    assert "<title>SGD: test accuracy 97.20 ± 0.41; n = 5</title>" in page(
        made_content(replace(section, figures=[plain]))
    )
    forest = replace(plain, table=pd.DataFrame({"group": ["a"], "sentence": [f"SGD is better. {HOSTILE}"]}))
    assert f"<title>SGD is better. {html.escape(HOSTILE)}</title>" in page(
        made_content(replace(section, figures=[forest]))
    )


def test_many_verdicts_are_folded():
    section = made_section(count=50, figures=0)
    text = page(made_content(section))
    assert "<summary>30 more</summary>" in text
    assert text.count("<li data-of=") == 50


def test_the_opening_counts_and_gives_the_first_decided_verdict():
    empty = pd.DataFrame()

    def section(*words):
        return Section("digits", [Verdict(word, f"{word} it is.") for word in words], [], *[empty] * 4, [], [])

    (one,) = opening([section("unresolved", "suggestive: worse", "worse", "better")])
    assert (one.word, one.sentence) == (
        "worse",
        "digits: 2 of 4 comparisons are decided (1 better, 1 worse), 1 more is suggestive. worse it is.",
    )
    (one,) = opening([section("unresolved")], "fixed beforehand: δ = 0.3")
    assert one.sentence == "digits: unresolved it is. Fixed beforehand: δ = 0.3."
    assert [one.word for one in opening([section()] * 5)] == [""] * 4
    assert opening([section()] * 5)[-1].sentence == "2 more tasks are below."
    assert opening([section()] * 4)[-1].sentence == "1 more task is below."


def test_the_opening_begins_with_what_was_asked_first():
    empty, primary = pd.DataFrame(), Verdict("equivalent", "The first question.")
    section = Section("digits", [Verdict("better", "A second one."), primary], [], *[empty] * 4, [], [], first=primary)
    all_of_them = replace(section, name="together", together=True)
    said = opening([all_of_them, *[section] * 4])
    assert [one.word for one in said] == ["equivalent"] * 4 + [""]
    assert said[0].sentence == "The first question."
    assert said[1].sentence.startswith("digits: 2 of 2 comparisons are decided")
    assert said[1].sentence.endswith("The first question.")
    assert said[-1].sentence == "1 more task is below."


@pytest.mark.slow
@browser
def test_tables_sort_by_number_and_by_name_with_what_is_missing_last(text, tmp_path):
    found = ask(
        text,
        tmp_path,
        """const table = $('table[aria-label^="Comparisons"]');
        const column = name => [...table.tHead.rows[0].cells].findIndex(head => head.textContent === name);
        const sort = name => { const head = table.tHead.rows[0].cells[column(name)];
          head.querySelector("button").click();
          const cells = [...table.tBodies[0].rows].map(row => row.cells[column(name)].textContent.trim());
          return [head.getAttribute("aria-sort"), ...cells]; };
        const answer = [sort("p (Holm)"), sort("p (Holm)"), sort("difference (points)"), sort("verdict")];
        return [...answer, table.querySelectorAll("[aria-sort]").length]""",
    )
    assert found[0] == ["ascending", "0.0001", "0.04", "0.2", "0.5", "1", "–"]
    assert found[1] == ["descending", "1", "0.5", "0.2", "0.04", "0.0001", "–"]
    assert [cell.split()[0] for cell in found[2][1:]] == ["−0.85", "−0.55", "−0.25", "+0.05", "+0.35", "+0.65"]
    assert found[3] == ["ascending", *sorted(WORDS)]
    assert found[4] == 1


@pytest.mark.slow
@browser
@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(text, tmp_path, dark):
    found = ask(
        text,
        tmp_path,
        """const parts = colour => colour.match(/[\\d.]+/g).map(Number);
        const ground = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
          if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
        const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const light = c => c.slice(0, 3).map(v => linear(v / 255))
          .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = new Set();
        let count = 0;
        while (walk.nextNode()) { const e = walk.currentNode.parentElement;
          if (!walk.currentNode.data.trim() || e.closest("svg, script")) continue;
          const [a, b] = [light(parts(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
          count += 1; if ((a + 0.05) / (b + 0.05) < 4.5) faint.add(e.className + ": " + e.textContent.slice(0, 40)); }
        return {count, faint: [...faint], dark: matchMedia("(prefers-color-scheme: dark)").matches,
          paper: getComputedStyle(document.body).backgroundColor,
          card: getComputedStyle($(".drawing")).backgroundColor}""",
        dark=dark,
    )
    assert found["count"] > 100
    assert found["faint"] == []
    assert found["dark"] == dark == (found["paper"] != "rgb(255, 255, 255)")
    assert found["card"] == "rgb(255, 255, 255)"


@pytest.mark.slow
@browser
def test_the_page_asks_for_nothing_and_its_own_policy_lets_its_script_run(text, tmp_path):
    assert ask(text, tmp_path, "return performance.getEntriesByType('resource').map(e => e.name)") == []
    (tmp_path / "asis.html").write_text(text, encoding="utf-8")
    dom, errors = browse(tmp_path / "asis.html", 1400, "--dump-dom")
    assert errors == []
    assert '<th scope="col" class="n"><button type="button">' in dom
    # what got past the escaping would still not run
    (tmp_path / "asis.html").write_text(
        text.replace("<h1>", "<script>document.title = 'run'</script><h1>"), encoding="utf-8"
    )
    dom, errors = browse(tmp_path / "asis.html", 1400, "--dump-dom")
    assert "<title>run</title>" not in dom
    assert "Content Security Policy" in "".join(errors)
