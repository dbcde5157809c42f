"""Colors can be read in light and dark, and told apart without one kind of cone: against formulas written here from their sources."""

import re
from itertools import combinations

import numpy as np
import pytest

from fedjax_lite.report import colors
from fedjax_lite.report.colors import CURVES, LEVELS, dark_of, on_dark, shade, shade_ink
from fedjax_lite.report.document import document

LIGHT_PAGE, DARK_PAGE = "#ffffff", "#15181d"

# Linear RGB as seen without one kind of cone, at severity 1: Machado, Oliveira, Fernandes 2009, "A physiologically-based model for
# simulation of color vision deficiency", table 1.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(color):
    """Linear RGB, by the standard of sRGB."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    values = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """WCAG 2's contrast, from 1 to 21."""
    low, high = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) + 0.05 for color in (a, b))
    return high / low


def lab(rgb):
    """CIE 1976 L*a*b* of linear RGB, under D65."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def nearest(palette, cones):
    """The least distance of two colors, as these cones see them; 2.3 is just noticeable."""
    places = [lab(np.array(SEEN[cones]) @ linear(color)) for color in palette]
    return min(float(np.linalg.norm(a - b)) for a, b in combinations(places, 2))


@pytest.mark.parametrize("cones", SEEN)
@pytest.mark.parametrize("palette", [CURVES, tuple(map(dark_of().get, CURVES))], ids=["light", "dark"])
def test_curves_differ_by_color_whatever_cones_a_reader_has(palette, cones):
    assert nearest(palette[:4], cones) > 25 and nearest(palette, cones) > 12


def test_curves_stand_out_from_the_page():
    """3 is what WCAG asks of graphics."""
    assert all(contrast(light, LIGHT_PAGE) > 3 and contrast(dark_of()[light], DARK_PAGE) > 3 for light in CURVES)


def test_letters_on_shades_and_on_the_page_can_be_read():
    """WCAG asks 4.5 of letters; where the ink turns from dark to light it is 4.58 at best."""
    dark = dark_of()
    for level in range(LEVELS + 1):
        color, ink = shade(level / LEVELS), shade_ink(level / LEVELS)
        assert contrast(color, ink) > 4 and contrast(dark[color], dark[ink]) > 4
    assert contrast(colors.NOT_FINITE, colors.INKS[0]) > 4.5 < contrast(dark[colors.NOT_FINITE], dark[colors.INKS[0]])
    assert contrast(colors.INK, LIGHT_PAGE) > 4.5 < contrast(dark[colors.INK], DARK_PAGE)
    style = document("", "")
    for name, least in (("ink", 7), ("quiet", 4.5), ("link", 4.5), ("bad", 4.5)):
        light, night = re.search(rf"--{name}: light-dark\((#\w+), (#\w+)\)", style).groups()
        assert contrast(light, LIGHT_PAGE) > least < contrast(night, DARK_PAGE), name
        assert contrast(light, "#f6f7f8") > least * 0.9 < contrast(night, "#1d2127"), name  # in boxes


def test_stronger_is_further_from_the_page_in_both():
    for scale, page in ((colors.SHADES, LIGHT_PAGE), (colors.SHADES_ON_DARK, DARK_PAGE)):
        away = [contrast(color, page) for color in scale]
        assert away == sorted(away)
    assert len({shade(level / LEVELS) for level in range(LEVELS + 1)}) == LEVELS + 1


def test_no_color_means_two_things_in_the_dark():
    dark = dark_of()
    assert len(dark) == 8 + 8 + LEVELS + 1  # single ones, the inks among them; curves; shades
    rules = re.findall(r'\[(fill|stroke)="(#\w+)"\]\{(?:fill|stroke):light-dark\((#\w+),(#\w+)\)\}', on_dark())
    assert all(color == light and dark[light] == night for _, color, light, night in rules) and {each[1] for each in rules} == set(dark)
