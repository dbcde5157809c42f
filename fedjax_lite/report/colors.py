"""The colors of pages and figures: figures name those of a light page, for which a style sheet puts others on a dark page.

An SVG of this project therefore stands alone too. Curves differ for readers without one kind of cone as well: tests/report/test_colors.py
simulates them (Machado, Oliveira and Fernandes 2009).
"""

__all__ = ["AREA", "BAR", "CURVES", "GRID", "INK", "NOT_FINITE", "PAGE", "SHADES", "ZERO", "dark_of", "on_dark", "shade", "shade_ink"]

PAGE, INK, GRID, ZERO = "#fff", "#444", "#e4e4e4", "#777"  # behind all, of letters in a figure, of lines across, of the line at zero
BAR, NOT_FINITE = "#8c8c8c", "#f4d6d2"  # of a bar, of a cell without a number
CURVES = ("#2850b3", "#ac5300", "#009a71", "#641e65", "#bc2c32", "#0397e8", "#2d4300", "#565d6b")
CURVES_ON_DARK = ("#67c0ff", "#c77b00", "#1a9266", "#9349ba", "#be3f2a", "#00e2e0", "#bfbb74", "#6b7581")
SHADES = ("#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b")  # from the worst, or least, to the best, or most
SHADES_ON_DARK = ("#1e2732", "#1d3d5c", "#22618f", "#3d8fc9", "#d6ebff")
LEVELS = 32  # of shades, which an eye cannot tell apart
INKS, INKS_ON_DARK, TURN = ("#000", "#fefefe"), ("#fff", "#010101"), 0.7  # of letters on a shade below TURN, and above
AREA = 0.15  # opacity of a shaded area


def shade(share: float) -> str:
    """Mix the color of a share, in one of `LEVELS` steps.

    >>> shade(0.0), shade(1.0)
    ('#f7fbff', '#08306b')
    """
    return _mixed(SHADES, round(share * LEVELS) / LEVELS)


def shade_ink(share: float) -> str:
    """Choose the color of letters that are read on the shade of a share."""
    return INKS[round(share * LEVELS) / LEVELS > TURN]


def dark_of() -> dict[str, str]:
    """Return each color of figures on a light page, and what stands for it on a dark one."""
    single = {PAGE: "#15181d", INK: "#c9ced6", GRID: "#2d333b", ZERO: "#8b929c", BAR: "#7d8590", NOT_FINITE: "#5c2b27"}
    shares = [level / LEVELS for level in range(LEVELS + 1)]
    shades = {_mixed(SHADES, share): _mixed(SHADES_ON_DARK, share) for share in shares}
    return single | dict(zip(CURVES + INKS, CURVES_ON_DARK + INKS_ON_DARK, strict=True)) | shades


def on_dark() -> str:
    """Write the style that puts dark pages' colors in place of light pages', in figures."""
    pairs = dark_of().items()
    return "".join(
        f'[{of}="{light}"]{{{of}:light-dark({light},{dark})}}'
        for light, dark in pairs
        for of in (("fill", "stroke") if light in (*CURVES, PAGE) else ("stroke",) if light in (ZERO, GRID) else ("fill",))
    )


def _mixed(scale: tuple[str, ...], share: float) -> str:
    """Mix the two neighbours in a scale that a share lies between."""
    place = share * (len(scale) - 1)
    first = min(int(place), len(scale) - 2)
    start, end = ([int(scale[first + k][i : i + 2], 16) for i in (1, 3, 5)] for k in (0, 1))
    return "#" + "".join(f"{round(a + (b - a) * (place - first)):02x}" for a, b in zip(start, end, strict=True))
