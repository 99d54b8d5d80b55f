"""How results look in a notebook: small HTML tables, and pandas frames."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from fedimb.errors import ConfigError

if TYPE_CHECKING:
    from pandas import DataFrame


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A table for ``_repr_html_``, in the notebook's own style; every text is escaped.

    Args:
        caption: above the table.
        head: headings; the first column is of names, the others of figures.
        rows: cells of each line, as many as headings.
        notes: lines below the table.

    >>> html_table("a & b", ["row", "recall"], [["fedavg", "0.5"]]).count("<td")
    1
    """
    first = '<caption style="caption-side: top; text-align: left">{}</caption><thead><tr>{}</tr></thead>'
    titles = "".join(f'<th scope="col" style="text-align: {_side(at)}">{escape(h)}</th>' for at, h in enumerate(head))
    lines = []
    for name, *cells in rows:
        figures = "".join(f'<td style="text-align: right">{escape(cell)}</td>' for cell in cells)
        lines.append(f'<tr><th scope="row" style="text-align: left">{escape(name)}</th>{figures}</tr>')
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    body = "\n".join(lines)
    return f"<table>{first.format(escape(caption), titles)}<tbody>\n{body}\n</tbody></table>{below}"


def frame(rows: Sequence[Mapping[str, object]]) -> "DataFrame":
    """A pandas frame with a line per mapping.

    Raises:
        ConfigError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ImportError:
        raise ConfigError("a frame needs pandas: pip install 'fedimb[sim]'") from None
    return DataFrame(list(rows))


def _side(column: int) -> str:
    return "right" if column else "left"
