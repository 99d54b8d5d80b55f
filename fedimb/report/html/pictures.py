"""matplotlib figures as markup: SVG that stands in the page itself, small and the same bytes each time.

matplotlib writes a style for the whole document, ids that repeat from figure to figure, fonts spelled out at every
word, six decimals and a block of metadata with addresses; none of that may go into a page with twenty of them.
"""

import html
import io
import re
from typing import TYPE_CHECKING, Any

from fedimb.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID, CONTROL = "#222222", "#b4b4b4", "#e4e4e4", "#444444"
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito (2008): distinguishable with any kind of colour vision."""

_DROPPED = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|<\?xml.*?\?>|<!DOCTYPE.*?>", re.S)
_FONT = re.compile(r"font-family:[^;\"]*;?\s*")
_SHORT_FONT = re.compile(r"font:\s*(?:[a-z]+ )*?(bold |[0-9]{3} )?([0-9.]+)px[^;\"]*")
_POSITIONED = re.compile(r'( (?:d|x|y|cx|cy|points|transform|width|height)=")([^"]*)(")')
_LINES = re.compile(r'( d="M )([-0-9. L]*)( z)?(")')
"""Paths of straight lines only: after the first point every further pair is a line anyway."""
_DECIMALS = re.compile(r"-?\d+\.\d\d+")


def figure(width: float, height: float) -> "Figure":
    """Create an empty figure, sizes in inches, without pyplot.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise ConfigError("pictures need matplotlib: pip install 'fedimb[sim]'") from None
    made = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05))
    FigureCanvasAgg(made)
    return made


def tidy(axes: "Axes") -> None:
    """Remove clutter: no box, faint grid lines, small dark text."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=FAINT, linewidth=0.8)
    axes.tick_params(length=0, colors=INK, labelsize=10)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def svg(made: Any, name: str, alt: str) -> str:
    """The figure as an ``<svg>`` element.

    Args:
        made: a matplotlib figure.
        name: prefix of its ids, unique on the page.
        alt: text alternative.
    """
    from matplotlib import rc_context

    for text in made.findobj(lambda part: hasattr(part, "set_parse_math")):
        text.set_parse_math(False)  # a class or label with a $ is a name, not a formula
    for part in made.findobj(lambda part: hasattr(part, "set_clip_on")):
        part.set_clip_on(False)  # nothing is drawn outside the axes, and clip paths are a fifth of the bytes
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "fedimb", "svg.fonttype": "none"}):
        made.savefig(buffer, format="svg", metadata={"Date": None})
    return inline(buffer.getvalue(), name, alt)


def inline(text: str, name: str, alt: str) -> str:
    """Turn an SVG file of matplotlib into an element for a page; see the module's docstring."""
    text = _DROPPED.sub("", text)
    text = text.replace("xlink:href", "href").replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    used = re.findall(r"(?:href=\"#|url\(#)([^\")]+)", text)
    short = {old: f"{name}-{at}" for at, old in enumerate(dict.fromkeys(used))}
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{short[found[1]]}"' if found[1] in short else "", text)
    text = re.sub(r"(href=\"#|url\(#)([^\")]+)", lambda found: found[1] + short[found[2]], text)
    text = _SHORT_FONT.sub(lambda found: f"font-size:{found[2]}px" + (";font-weight:bold" if found[1] else ""), text)
    text = _FONT.sub("", text)
    text = _POSITIONED.sub(lambda found: found[1] + _DECIMALS.sub(_round, found[2]).replace("\n", "") + found[3], text)
    text = _LINES.sub(_line, text)
    text = re.sub(r' transform="rotate\(-?0 [^"]*"', "", re.sub(r">\s+<", "><", text)).strip()
    text = re.sub(r'style="[^"]*"', lambda found: found[0].replace(": ", ":").replace("; ", ";"), text)
    text = text.replace("font-size:10px;", "").replace(f";fill:{INK}", "").replace(' version="1.1"', "")
    text = text.replace(";stroke-linecap:square", "")  # half a line's width longer at its ends
    text = text.replace("<defs></defs>", "").replace("<defs/>", "")
    while (shorter := text.replace("<g/>", "").replace("<g></g>", "")) != text:
        text = shorter
    if "<g " not in text:  # groups without attributes draw nothing
        text = text.replace("<g>", "").replace("</g>", "")
    label = html.escape(" ".join(alt.split()), quote=True)
    return text.replace("<svg ", f'<svg class="plot" role="img" aria-label="{label}" ', 1)


def _line(found: re.Match[str]) -> str:
    points = re.sub(r" ?L ", " ", found[2]).strip().replace(" -", "-")
    return f' d="M{points}{"z" if found[3] else ""}"'


def _round(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}".removesuffix(".0")
