"""The report as one HTML file: no network, opens from disk, readable without its script.

Everything that comes from runs is untrusted. The template escapes it, drawings are taken apart and written anew
without what could act, and the page's content security policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import math
import numbers
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import jinja2
import pandas as pd
from markupsafe import Markup

from nested_lookahead.analysis.checks import Finding

MISSING = "–"
MAX_ROWS = 400  # of the table behind one figure; whole curves belong in a CSV, not in a page
MOST_VERDICTS = 20  # at first sight
NOT_DRAWN = {"metadata", "style", "script", "title", "foreignObject"}


@dataclass(frozen=True)
class Verdict:
    """``word`` is better, worse, equivalent or unresolved, perhaps with "suggestive: " before it; ``group``: the id of
    the group it is about, where it is about one."""

    word: str
    sentence: str
    group: str = ""


class Group(NamedTuple):
    """What the toggles show and hide, in ``colour`` (``#rrggbb``); ``told``: its results, for tooltips."""

    id: str
    label: str
    colour: str
    told: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure: matplotlib's SVG text, what it shows in words (``alt``), and the table it was drawn from.

    An artist with the gid ``g-<group id>-<number>`` belongs to that group.
    """

    name: str
    title: str
    caption: str
    alt: str
    table: pd.DataFrame
    svg: str


@dataclass(frozen=True)
class Section:
    """One task, or several together.

    A column ``group`` of ids in a table is shown as the group's colour; ``verdict`` as a badge.
    """

    name: str
    verdicts: Sequence[Verdict]
    checks: Sequence[Finding]
    comparisons: pd.DataFrame
    results: pd.DataFrame
    budget: pd.DataFrame
    settings: pd.DataFrame
    figures: Sequence[Picture]
    groups: Sequence[Group]
    digits: int = 2
    """Decimals that a number of the metric takes."""
    first: Verdict | None = None
    """What the study has fixed as its first question; the page opens with it."""
    together: bool = False
    """Whether it is what several tasks say together."""


@dataclass(frozen=True)
class Content:
    """All that the page says; ``opening``: the result of each task in a sentence or two; ``left_out`` has the columns
    path and reason."""

    title: str
    opening: Sequence[Verdict]
    command: str
    created: str
    versions: dict[str, str]
    sections: Sequence[Section]
    left_out: pd.DataFrame


def page(content: Content) -> str:
    """The whole page as HTML text, to be written as UTF-8."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"sha256": _sha256, "tally": _tally, "drawing": _drawing, "table": _table, "tone": _tone}
    template = environment.from_string(Path(__file__).with_name("template.html.j2").read_text(encoding="utf-8"))
    return template.render(content=content, max_rows=MAX_ROWS, most_verdicts=MOST_VERDICTS)


def _sha256(text: str) -> str:
    """As a content security policy names a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _tone(word: str) -> str:
    """The verdict without "suggestive: ", as far as it has a colour of its own."""
    plain = word.rpartition(" ")[2]
    return plain if plain in ("better", "worse", "equivalent") else "unresolved"


def _tally(verdicts: Sequence[Verdict]) -> list[tuple[str, int]]:
    """How often each verdict was given, the most decided first."""
    order = ["better", "worse", "equivalent", "unresolved"]
    counts = Counter(verdict.word for verdict in verdicts)
    return sorted(counts.items(), key=lambda entry: (order.index(_tone(entry[0])), len(entry[0])))


# Drawings


class Drawing(NamedTuple):
    svg: Markup
    width: float  # in points


def _drawing(picture: Picture, prefix: str, groups: Sequence[Group]) -> Drawing:
    """The picture's SVG for a place inside HTML.

    Ids become ``<prefix>-<number>`` and references follow; a group's artists get ``data-group`` and a tooltip. Style
    sheets go, for they would apply to the whole page, and so does whatever could act or load.
    """
    source = ElementTree.fromstring(picture.svg)
    found = (element.get("id") for element in source.iter())
    names = {old: f"{prefix}-{number}" for number, old in enumerate(dict.fromkeys(filter(None, found)))}
    labels = {group.id: ": ".join(filter(None, [group.label, group.told])) for group in groups}
    if {"group", "sentence"} <= {*picture.table}:
        labels |= dict(zip(picture.table["group"].astype(str), picture.table["sentence"].astype(str), strict=True))
    svg = _redrawn(source, names, labels, set())
    _, _, width, height = map(float, svg.get("viewBox", "0 0 504 216").split())
    for key in ("width", "height", "version"):
        svg.attrib.pop(key, None)
    svg.attrib |= {"role": "img", "aria-label": picture.alt, "style": f"--width: {width:g}; --height: {height:g}"}
    return Drawing(Markup(ElementTree.tostring(svg, encoding="unicode")), width)


def _redrawn(
    element: ElementTree.Element, names: dict[str, str], labels: dict[str, str], used: set[str]
) -> ElementTree.Element:
    new = ElementTree.Element(_local(element.tag))
    new.text, new.tail = element.text, element.tail
    for key, value in element.attrib.items():
        name = _local(key)
        if name == "id":
            if names.get(value) and value not in used:  # a second artist of the same gid gets no id
                used.add(value)
                new.set("id", names[value])
        elif name == "href":
            if value.startswith("#"):
                new.set("href", "#" + names.get(value[1:], "none"))
            elif value.startswith("data:image/"):
                new.set("href", value)
        elif not name.lower().startswith("on"):
            value = re.sub(r"url\(#([^)]*)\)", lambda match: f"url(#{names.get(match[1], 'none')})", value)
            new.set(name, _shorter(value) if name == "d" else value)
    group = re.fullmatch(r"g-(.+)-\d+", element.get("id", ""))
    if group and group[1] in labels:
        new.set("data-group", group[1])
        ElementTree.SubElement(new, "title").text = labels[group[1]]
    for child in element:
        if _local(child.tag) not in NOT_DRAWN:
            new.append(_redrawn(child, names, labels, used))
    return new


def _local(name: Any) -> str:
    """A tag's or attribute's name without its namespace; HTML knows which one is meant."""
    return str(name).rpartition("}")[2]


def _shorter(path: str) -> str:
    """Coordinates to a hundredth of a point: half the page's size, and no visible difference."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", re.sub(r"\s+", " ", path).strip())


# Tables


class Row(NamedTuple):
    group: Group | None
    cells: list[str]


class Table(NamedTuple):
    columns: list[tuple[str, bool]]  # name, and whether its cells are numbers
    rows: list[Row]
    left_out: int  # rows beyond the limit


def _table(frame: pd.DataFrame, groups: Sequence[Group] = (), limit: int | None = None, digits: int = 2) -> Table:
    """The frame as text, with the group of each row where the frame has a column ``group`` of ids.

    Numbers have four figures, and ``digits`` decimals at the least.
    """
    if frame.index.name or isinstance(frame.index, pd.MultiIndex):
        frame = frame.reset_index()
    known = {group.id: group for group in groups}
    shown = frame if limit is None else frame.head(limit)
    of_rows: list[Group | None] = [None] * len(shown)
    if "group" in shown:
        of_rows = [known.get(str(identity)) for identity in shown["group"]]
        position = shown.columns.get_loc("group")
        shown = shown.drop(columns="group")
        if not {"method", "label"} & set(shown.columns):
            labels = [group.label if group else str(i) for group, i in zip(of_rows, frame["group"], strict=False)]
            shown.insert(position if isinstance(position, int) else 0, "method", labels)
    columns = [[_text(value, digits) for value in shown.iloc[:, i]] for i in range(shown.shape[1])]
    names = [" ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in shown.columns]
    heads = [(name.replace("_", " "), _are_numbers(cells)) for name, cells in zip(names, columns, strict=True)]
    cells_of_rows = zip(*columns, strict=True) if columns else [()] * len(shown)
    rows = [Row(group, list(cells)) for group, cells in zip(of_rows, cells_of_rows, strict=True)]
    return Table(heads, rows, len(frame) - len(shown))


def _text(value: Any, digits: int) -> str:
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Real):
        number = float(value) or 0.0  # no minus before a zero
        if math.isnan(number):
            return MISSING
        if math.isinf(number):
            return "∞" if number > 0 else "−∞"
        return _number(number, digits).replace("-", "−", 1 if number < 0 else 0)
    if value is None or value is pd.NA or value is pd.NaT:
        return MISSING
    return str(value)


def _number(number: float, digits: int) -> str:
    size = abs(number)
    if number == round(number) and size < 1e15:
        return f"{number:.0f}"
    if not 1e-4 <= size < 1e9:
        return f"{number:.4g}"
    least = f"{number:.{max(digits, 3 - math.floor(math.log10(size)))}f}"
    return least.rstrip("0").rstrip(".") if "." in least else least


def _are_numbers(cells: list[str]) -> bool:
    told = [cell for cell in cells if cell not in ("", MISSING)]
    return bool(told) and all(re.match(r"[+\-−]?[\d.∞]", cell.lstrip("<>≤≥≈× ")) for cell in told)
