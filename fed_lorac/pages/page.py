"""The page: one HTML file that holds everything it shows. Knows figures and HTML; not runs' files."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

from fed_lorac import __version__
from fed_lorac.pages.chart import Absent, Figure, Picture
from fed_lorac.pages.interactive import interactive
from fed_lorac.pages.lead import lead, tiles
from fed_lorac.pages.reported import Reported
from fed_lorac.pages.table import note, table

__all__ = ["page"]

Drawn = Mapping[str, Mapping[str, bytes]]
"""A figure's name -> its files by kind: "png", "svg"."""


def page(found: Reported, figures: Sequence[Figure | Absent], drawn: Drawn) -> str:
    """The HTML: title, summary, figures with what to conclude, the table, and what could not be shown."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  (an extra)

    shown = [figure for figure in figures if isinstance(figure, Figure)]
    charts = {one.name: interactive(one.chart) for one in shown if not isinstance(one.chart, Picture)}
    return Template(_part("page.html")).substitute(
        title=escape(found.title),
        version=escape(__version__),
        css=_part("page.css"),
        lead=escape(lead(found)),
        tiles="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in tiles(found).items()),
        contents="".join(f'<li><a href="#{one.name}">{escape(one.title)}</a></li>' for one in [*shown, _TABLE]),
        figures="\n".join(_section(one, drawn[one.name]) for one in shown),
        table=_table(*table(found)),
        table_note=escape(note(found)),
        notes=_notes(found, [one for one in figures if isinstance(one, Absent)]),
        charts=json.dumps(charts, allow_nan=False).replace("</", "<\\/"),
        plotly=get_plotlyjs(),
        js=_part("page.js"),
    )


_TABLE = Figure("table", "The table", "", "", [], Picture(b""))


def _part(name: str) -> str:
    return files("fed_lorac.pages").joinpath(name).read_text(encoding="utf-8")


def _section(figure: Figure, its: Mapping[str, bytes]) -> str:
    kind = "svg" if "svg" in its else "png"
    data = base64.b64encode(its[kind]).decode()
    mime = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    alt = escape(figure.alt)
    plot = (
        ""
        if isinstance(figure.chart, Picture)
        else f'<div class="plot" id="plot-{figure.name}" role="img" aria-label="{alt}"></div>\n'
    )
    links = ", ".join(
        f'<a href="figures/{figure.name}.{one}">{one.upper()}</a>' for one in (*its, *["csv"] * bool(figure.rows))
    )
    return (
        f'<section id="{figure.name}">\n<h2>{escape(figure.title)}</h2>\n<figure>\n'
        f"<figcaption>{escape(figure.caption)}</figcaption>\n{plot}"
        f'<img class="still" alt="{alt}" src="data:{mime};base64,{data}">\n</figure>\n'
        f'<p class="files">{links}</p>\n</section>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def _notes(found: Reported, absent: Sequence[Absent]) -> str:
    said = [*found.remarks, *(f"Failed: {error}" for error in found.errors)]
    if found.waiting:
        said.append(f"{'1 run is' if found.waiting == 1 else f'{found.waiting} runs are'} not finished.")
    said += [f"No figure “{one.title}”: {one.why}" for one in absent]
    items = "".join(f"<li>{escape(text)}</li>" for text in said)
    return f'<section id="notes"><h2>What is not shown</h2><ul>{items}</ul></section>' if said else ""
