"""The experiments of one run of sim.py as one page, complete in itself: bars of every figure of the tables, and the curves of the
requests' waits over one another. It wears the style of `compare`'s own pages, taken from one of them."""
import html
import json
import math
import re

COLOURS = ["#2f6db5", "#d07a1f", "#2a8f76", "#c2413a", "#8257b0", "#7d8793", "#a8912b", "#3aa0b8", "#c46fa4", "#5f7d3a", "#9b5f3c",
           "#4f5d9e"]
CURVES = {"ttft_ms": "Time to the first token, ms", "e2el_ms": "Time to the last token, ms"}
CURVE_POINTS = 160
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 300, 46, 14, 28, 34
BAR, BARS_LEFT, BARS_RIGHT = 17, 22, 80


def text(x, y, words, anchor="start", kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{html.escape(words)}</text>'


def svg(width, height, parts):
    return f'<figure><svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg></figure>'


def colour(i):
    return COLOURS[i % len(COLOURS)]


def bars(column, values, digits):
    """A row a cell, in the order of the key; values are never below 0."""
    most, parts = max(values) or 1, [text(8, 16, column, kind="title")]
    room = WIDTH - BARS_LEFT - BARS_RIGHT
    for i, value in enumerate(values):
        y, width = TOP + i * BAR, room * value / most
        parts.append(text(BARS_LEFT - 5, y + 11, str(i + 1), "end"))
        parts.append(f'<rect x="{BARS_LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 4}" fill="{colour(i)}"/>')
        parts.append(text(BARS_LEFT + width + 5, y + 11, f"{value:,.{digits}f}"))
    return svg(WIDTH, TOP + BAR * len(values) + 6, parts)


def decades(low, high):
    return [10.0 ** k for k in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def curves(title, rows):
    """The share of requests within a time, a line a cell; the time's axis is logarithmic and begins at the fastest hundredth."""
    rows = [sorted(row) for row in rows]
    drawn = [row for row in rows if row and row[-1] > 0]
    if not drawn:
        return ""
    low, high = max(1e-3, min(row[len(row) // 100] for row in drawn)), max(row[-1] for row in drawn)
    high = max(high, low * 1.01)
    x_of = lambda v: LEFT + (WIDTH - LEFT - RIGHT) * math.log(min(max(v, low), high) / low) / math.log(high / low)
    y_of = lambda share: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    parts = [text(8, 16, title, kind="title")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path class="grid" d="M{LEFT} {y_of(share):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(text(LEFT - 6, y_of(share) + 4, f"{share:.0%}", "end"))
    for value in decades(low, high):
        parts.append(f'<path class="grid" d="M{x_of(value):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(text(x_of(value), HEIGHT - BOTTOM + 16, f"{value:,g}", "middle"))
    for i, row in enumerate(rows):
        if not row:
            continue
        shares = [1 - (1 - k / (CURVE_POINTS - 1)) ** 2 for k in range(CURVE_POINTS)]  # more points in the tail
        points = " ".join(f"{x_of(row[round(s * (len(row) - 1))]):.1f},{y_of(s):.1f}" for s in shares)
        parts.append(f'<polyline class="line" style="stroke:{colour(i)}" points="{points}"/>')
    return svg(WIDTH, HEIGHT, parts)


def waits(folder, field):
    rows = map(json.loads, (folder / "cell-1.jsonl").read_text().splitlines())
    return [row[field] for row in rows if row["state"] == "completed"]


def section(name, title, paper, labels, columns, folders):
    """columns: (name, values, digits) each; folders: what `compare` wrote, a cell each."""
    key = "".join(f'<div class="key"><i style="background:{colour(i)}"></i>{i + 1}: <code>{html.escape(label)}</code></div>'
                  for i, label in enumerate(labels))
    figures = [bars(*column) for column in columns]
    figures += [curves(label, [waits(folder, field) for folder in folders]) for field, label in CURVES.items()]
    return (f'<h2 id="{name}">{html.escape(title)}</h2><p>Paper: {html.escape(paper)}.</p>{key}'
            f'<div class="row">{"".join(figures)}</div>')


def page(date, names, sections, folder):
    """folder: of any cell, for the style."""
    style = re.search(r"<style>(.*?)</style>", (folder / "compare.html").read_text(), re.S).group(1)
    links = " · ".join(f'<a href="#{name}">{name}</a>' for name in names)
    return ('<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
            f"<title>Scheduling experiments</title><style>{style} .row>figure{{flex:0 1 {WIDTH}px}}</style>"
            f"<h1>Scheduling experiments</h1><p>Simulated on {date}; docs/scheduling.md says what each shows.</p>"
            f"<p>{links}</p>{''.join(sections)}\n")
