"""Build one self-contained HTML page from tables, figures and notes; every text is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

CSS = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5b6675; --line: #dde3ea; --ground: #f6f8fa; --good: #00734f;
  --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1060px; padding: 32px 24px 80px; background: white; color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 27px; margin: 0 0 2px; } h2 { font-size: 19px; margin: 42px 0 8px; }
p { max-width: 78ch; } .soft, figcaption { color: var(--soft); font-size: 13.5px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(186px, 1fr)); gap: 12px; margin: 22px 0; }
.card { background: var(--ground); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.card b { display: block; font-size: 25px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: 13px; display: block; }
table { border-collapse: collapse; margin: 10px 0 4px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 18px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: 13px; }
td.number, th.number { text-align: right; }
figure { margin: 12px 0 6px; } figure img, video { max-width: 100%; height: auto; }
.stills { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 12px; }
.stills img { width: 100%; border-radius: 6px; background: black; }
ul { max-width: 78ch; padding-left: 20px; } .bad { color: var(--bad); font-weight: 600; }
.notice { border-left: 4px solid var(--bad); background: #fdf3f2; padding: 8px 14px; margin: 16px 0; }
"""


def page(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """Return the whole page."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{CSS}</style>'
    body = "\n".join(sections)
    return f'{head}<body><h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p>\n{body}\n</body></html>\n'


def section(title: str, *content: str) -> str:
    """Return a headed section, or nothing where it has no content."""
    filled = [part for part in content if part]
    return f"<section><h2>{escape(title)}</h2>{''.join(filled)}</section>" if filled else ""


def text(words: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(words)}</p>"


def notice(words: str) -> str:
    """Return a paragraph that must not be missed."""
    return f'<p class="notice">{escape(words)}</p>'


def bullets(lines: Sequence[str]) -> str:
    """Return a list, or nothing where it is empty."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def cards(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return key figures: (name, value, note) each."""
    boxes = (
        f"<div class=card><span>{escape(n)}</span><b>{escape(v)}</b><span>{escape(t)}</span></div>"
        for n, v, t in entries
    )
    return f'<div class="cards">{"".join(boxes)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; numbers stand to the right, None is a dash. Nothing where it has no rows."""
    if not rows:
        return ""
    right = [any(type(row[column]) in (int, float) for row in rows) for column in range(len(head))]
    titles = "".join(f"<th{_side(right[c])}>{escape(title)}</th>" for c, title in enumerate(head))
    lines = ("".join(f"<td{_side(right[c])}>{escape(figure(v))}</td>" for c, v in enumerate(row)) for row in rows)
    return f"<table><tr>{titles}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def picture(data_uri: str, caption: str, description: str) -> str:
    """Return a figure of an inline picture."""
    legend = f"<figcaption>{escape(caption)}</figcaption>"
    return f'<figure><img alt="{escape(description)}" src="{data_uri}">{legend}</figure>'


def stills(entries: Sequence[tuple[str, str]]) -> str:
    """Return (data URI, caption) pictures side by side."""
    figures = (
        f"<figure><img alt='{escape(c)}' src='{uri}'><figcaption>{escape(c)}</figcaption></figure>"
        for uri, c in entries
    )
    return f'<div class="stills">{"".join(figures)}</div>' if entries else ""


def video(name: str) -> str:
    """Return a player of a film that lies beside the page."""
    return f'<video controls preload="metadata" src="{escape(name)}"></video><p class="soft">{escape(name)}</p>'


def figure(value: object) -> str:
    """Return a value for a person: floats with three significant decimals, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        size = abs(value)
        return format(value, ".0f" if size >= 1000 else ".2g" if 0.0 < size < 0.1 else ".2f")
    return str(value)


def _side(right: bool) -> str:
    return ' class="number"' if right else ""
