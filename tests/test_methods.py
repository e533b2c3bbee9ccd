"""The table of methods: names, markers, and colours that everyone can tell apart."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import yaml
from conftest import ROOT

from nested_lookahead.methods import (
    METHODS,
    PLAIN,
    SPARE_COLORS,
    SPARE_MARKERS,
    Method,
    assign,
    default_settings,
    method,
)

# --- how different two colours look, to whom ------------------------------------------------------------------------

VISIONS = {  # Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(color):
    """sRGB's ``#rrggbb`` as light (IEC 61966-2-1)."""
    encoded = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(light):
    """CIELAB under D65."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    x, y, z = (
        v ** (1 / 3) if v > (6 / 29) ** 3 else v * (29 / 6) ** 2 / 3 + 4 / 29
        for v in np.array(to_xyz) @ light / [0.95047, 1.0, 1.08883]
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def seen(color, vision):
    return lab(np.clip(np.array(VISIONS[vision]) @ linear(color), 0, 1))


def ciede2000(one, other):
    """ΔE₀₀ of two colours in CIELAB, step by step as in Sharma, Wu and Dalal (2005)."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    chroma = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    g = 0.5 * (1 - math.sqrt(chroma**7 / (chroma**7 + 25**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = math.hypot(a1, b1), math.hypot(a2, b2)
    h1, h2 = (math.degrees(math.atan2(b, a)) % 360 if a or b else 0.0 for a, b in ((a1, b1), (a2, b2)))
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    if abs(turn) == 180:
        turn = h2 - h1
    dl, dc, dh = l2 - l1, c2 - c1, 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2))
    lightness, c = (l1 + l2) / 2, (c1 + c2) / 2
    if c1 * c2 == 0:
        h = h1 + h2
    elif abs(h1 - h2) <= 180:
        h = (h1 + h2) / 2
    else:
        h = (h1 + h2 + (360 if h1 + h2 < 360 else -360)) / 2
    t = 1 + sum(
        weight * math.cos(math.radians(times * h - angle))
        for weight, times, angle in ((-0.17, 1, 30), (0.24, 2, 0), (0.32, 3, -6), (-0.20, 4, 63))
    )
    sl = 1 + 0.015 * (lightness - 50) ** 2 / math.sqrt(20 + (lightness - 50) ** 2)
    sc, sh = 1 + 0.045 * c, 1 + 0.015 * c * t
    rotation = -2 * math.sqrt(c**7 / (c**7 + 25**7)) * math.sin(math.radians(60 * math.exp(-(((h - 275) / 25) ** 2))))
    return math.sqrt((dl / sl) ** 2 + (dc / sc) ** 2 + (dh / sh) ** 2 + rotation * (dc / sc) * (dh / sh))


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (58, 24, 15), 19.4535),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
        ((90.8027, -2.0831, 1.441), (91.1528, -1.6435, 0.0447), 1.4441),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_of_colours_is_that_of_the_published_pairs(one, other, difference):
    """From table 1 of Sharma, Wu and Dalal (2005)."""
    assert ciede2000(one, other) == pytest.approx(difference, abs=5e-5)
    assert ciede2000(other, one) == pytest.approx(difference, abs=5e-5)


COLORS = {name: one.color for name, one in METHODS.items()}
MAIN = dict(list(COLORS.items())[:8])
LESSER = dict(list(COLORS.items())[8:])
RIVALS = {
    name: COLORS[name]
    for name in ("sgd", "adamw", "lookahead", "snoo", "nested_lookahead", "nested_momentum", "multilayer_lookahead",
                 "schedule_free")
}  # fmt: skip
"""That stand beside each other in the studies of `conf/experiment/answer`."""
SPARE = {f"spare colour {i}": color for i, color in enumerate(SPARE_COLORS)}


def too_close(least, colors, others=None):
    """Each pair that differs by less to some eyes, as what a failed test says of it."""
    pairs = itertools.combinations(colors, 2) if others is None else itertools.product(colors, others)
    both = colors | (others or {})
    differences = (
        (ciede2000(seen(both[one], vision), seen(both[other], vision)), one, other, vision)
        for one, other in pairs
        for vision in VISIONS
    )
    return [
        f"{one} {both[one]} and {other} {both[other]} differ by {difference:.1f} < {least} ({vision})"
        for difference, one, other, vision in sorted(differences)
        if difference < least
    ]


@pytest.mark.parametrize(
    ("least", "colors"),
    [
        (10, (MAIN,)),
        (10, (SPARE,)),
        (9, (MAIN, SPARE)),
        (8, (MAIN, LESSER)),
        (8, (LESSER,)),
        (11, (RIVALS,)),
        (25, ({"lookahead": COLORS["lookahead"]}, {"snoo": COLORS["snoo"]})),
    ],
    ids=("main", "spare", "main and spare", "main and lesser", "lesser", "rivals", "Lookahead and SNOO"),
)
def test_colours_differ_for_everyone(least, colors):
    found = too_close(least, *colors)
    assert not found, "\n".join(found)


def test_a_failed_comparison_of_colours_names_the_methods():
    found = too_close(8, {"sgd": "#000000"}, {"lion": "#0A0A0A"})
    assert len(found) == len(VISIONS)
    assert found[0].startswith("sgd #000000 and lion #0A0A0A differ by 1.")


def test_colours_stand_out_from_white():
    """With 3:1 (WCAG 2), also as published numbers, which are mixed with as much grey."""
    for name, color in (COLORS | SPARE).items():
        greyer = "#" + "".join(f"{(int(color[i : i + 2], 16) + 128) // 2:02x}" for i in (1, 3, 5))
        for shown in (color, greyer):
            contrast = 1.05 / (linear(shown) @ [0.2126, 0.7152, 0.0722] + 0.05)
            assert contrast >= 3, f"{name} {color}: {shown} has a contrast of {contrast:.2f} < 3 on white"


def test_the_main_methods_keep_their_colours():
    names = ("sgd", "adam", "lookahead", "nested_lookahead")
    assert list(METHODS)[:4] == list(names)
    assert [METHODS[name].color for name in names] == ["#000000", "#009E73", "#0072B2", "#D55E00"]


# --- names and markers ----------------------------------------------------------------------------------------------


def test_every_method_in_the_table_is_an_optimizer_of_ours():
    """An optimizer need not be in the table: it then has a spare colour."""
    configs = (ROOT / "conf/optimizer").rglob("*.yaml")
    names = {str(yaml.safe_load(path.read_text()).get("name", path.stem)) for path in configs}
    assert not set(METHODS) - names


def test_inner_optimizers_have_markers_of_their_own():
    inner = [one.marker for one in METHODS.values() if one.marker != PLAIN]
    assert len({*inner, *SPARE_MARKERS, PLAIN}) == len(inner) + len(SPARE_MARKERS) + 1


def test_unknown_methods_get_spare_looks_whatever_their_order():
    made = assign(["sgd", "tiger", "lion", "sophia"])
    assert made == assign(["sophia", "lion", "tiger", "sgd", "lion"])
    assert made["sgd"] is METHODS["sgd"]
    assert made["lion"] == Method("lion", "lion", SPARE_COLORS[0], SPARE_MARKERS[0])
    assert (made["tiger"].color, made["tiger"].marker) == (SPARE_COLORS[2], SPARE_MARKERS[2])
    assert method("lion") == made["lion"]


def test_no_number_of_unknown_methods_is_too_large():
    made = assign([f"new{i:02}" for i in range(50)])
    assert len({(one.color, one.marker) for one in made.values()}) == 50


def test_default_settings_are_those_of_the_papers():
    expected = {"k": 5, "alpha": 0.5, "s": 5, "h": 0.5, "pullback": "none"}
    assert {key: value for key, value in default_settings().items() if key in expected} == expected
    assert None not in default_settings().values()


def test_the_table_needs_neither_torch_nor_matplotlib():
    script = (
        "import sys; from nested_lookahead.methods import default_settings; default_settings(); "
        "assert not {'torch', 'matplotlib', 'numpy', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
