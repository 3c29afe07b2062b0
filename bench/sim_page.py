"""The experiments of one run of sim.py as one page, complete in itself: bars of every figure of the tables, and the curves of the
requests' waits over one another where the run's own rows are there (a recorded run has the figures alone). And one picture for docs/:
what the defaults are worth. Both are well-formed XML, so that a test can read them."""
import html
import json
import math

COLOURS = ["#2f6db5", "#d07a1f", "#2a8f76", "#c2413a", "#8257b0", "#7d8793", "#a8912b", "#3aa0b8", "#c46fa4", "#5f7d3a", "#9b5f3c",
           "#4f5d9e"]
CURVES = {"ttft_ms": "Time to the first token, ms", "e2el_ms": "Time to the last token, ms"}
CURVE_POINTS = 160
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 300, 46, 14, 28, 34
BAR, BARS_LEFT, BARS_RIGHT = 17, 22, 120
LIGHT, DARK = "--ink:#1f2933;--soft:#61707f;--line:#d9dfe5;--page:#f6f8fa;--card:#fff", \
    "--ink:#e6e9ed;--soft:#98a3b1;--line:#2f3742;--page:#14181d;--card:#1b2027"
STYLE = (f":root{{{LIGHT}}}@media(prefers-color-scheme:dark){{:root{{{DARK}}}}}"
         "body{margin:24px;font:14px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--page)}a{color:inherit}"
         "p{color:var(--soft)}.key i{display:inline-block;width:10px;height:10px;margin-right:6px}"
         ".row{display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start}"
         "figure{margin:12px 0 0;padding:8px;background:var(--card);border:1px solid var(--line);border-radius:6px;"
         f"box-sizing:border-box;flex:0 1 {WIDTH}px}}figure.about{{flex-basis:{2 * WIDTH + 16}px}}figure svg{{display:block;width:100%}}"
         "text{font:12px system-ui,sans-serif;fill:var(--ink)}.title{font-weight:600}.grid{stroke:var(--line)}"
         ".line{fill:none;stroke-width:1.6}.one{stroke:var(--soft);stroke-dasharray:3 3}")


def text(x, y, words, anchor="start", kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{html.escape(words)}</text>'


def svg(width, height, title, says, parts, kind=""):
    return (f'<figure class="{kind}"><svg viewBox="0 0 {width} {height}" role="img"><title>{html.escape(title)}</title>'
            f'<desc>{html.escape(says)}</desc>{text(8, 16, title, kind="title")}{"".join(parts)}</svg></figure>')


def colour(i):
    return COLOURS[i % len(COLOURS)]


def said(values, i, digits):
    """The figure of row i, and how many times that of the first row it is."""
    return f"{values[i]:,.{digits}f}" + (f" ({values[i] / values[0]:.2f}x)" if i and values[0] else "")


def bars(column, values, digits, kind=""):
    """A row a cell, in the order of the key; values are never below 0. The dashed line is the first row's."""
    most, parts, room = max(values) or 1, [], WIDTH - BARS_LEFT - BARS_RIGHT
    says = [said(values, i, digits) for i in range(len(values))]
    for i, value in enumerate(values):
        y, width = TOP + i * BAR, room * value / most
        parts.append(text(BARS_LEFT - 5, y + 11, str(i + 1), "end"))
        parts.append(f'<rect x="{BARS_LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 4}" fill="{colour(i)}"/>')
        parts.append(text(BARS_LEFT + width + 5, y + 11, says[i]))
    if values[0]:
        parts.append(f'<path class="one" d="M{BARS_LEFT + room * values[0] / most:.1f} {TOP}v{BAR * len(values) - 4}"/>')
    return svg(WIDTH, TOP + BAR * len(values) + 6, column, "; ".join(f"{i + 1}: {s}" for i, s in enumerate(says)), parts, kind)


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
    parts = []
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
    return svg(WIDTH, HEIGHT, title, "The share of requests that waited no longer, a line a row", parts)


def waits(folder, field):
    rows = map(json.loads, (folder / "cell-1.jsonl").read_text().splitlines())
    return [row[field] for row in rows if row["state"] == "completed"]


def section(name, title, paper, labels, columns, folders):
    """columns: (name, values, digits) each, the first is what it is about; folders: what `compare` wrote, a cell each, or none."""
    key = "".join(f'<div class="key"><i style="background:{colour(i)}"></i>{i + 1}: <code>{html.escape(label)}</code></div>'
                  for i, label in enumerate(labels))
    figures = [bars(*column, kind="" if i else "about") for i, column in enumerate(columns)]
    figures += [curves(label, [waits(folder, field) for folder in folders]) for field, label in CURVES.items()]
    return (f'<h2 id="{name}">{html.escape(title)}</h2><p>Paper: {html.escape(paper)}.</p>{key}'
            f'<div class="row">{"".join(figures)}</div>')


def page(dated, names, sections):
    links = " · ".join(f'<a href="#{name}">{name}</a>' for name in names)
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width"/>'
            f"<title>Scheduling experiments</title><style>{STYLE}</style></head><body><h1>Scheduling experiments</h1>"
            f"<p>Simulated, {html.escape(dated)}; docs/scheduling.md says what each shows. Bars begin at 0; ratios, and the dashed line, "
            f"are to the first row.</p><p>{links}</p>{''.join(sections)}</body></html>\n")


def ratios(title, labels, groups):
    """One picture of ratios to the first row. groups: (name, values, digits) each, a bar a label, drawn one below the other."""
    left, width, bar, top = 260, 780, 14, 70
    step, height = len(labels) * bar + 14, top + len(groups) * (len(labels) * bar + 14)
    most = max(value / values[0] for _, values, _ in groups for value in values)
    room = width - left - 100
    parts, says = [text(12, 24, title, kind="title")], []
    for i, label in enumerate(labels):
        parts.append(f'<rect x="{12 + 190 * i}" y="38" width="10" height="10" fill="{colour(i)}"/>' + text(28 + 190 * i, 47, label))
    for g, (name, values, digits) in enumerate(groups):
        y = top + g * step
        parts.append(text(left - 10, y + len(labels) * bar / 2 + 3, name, "end"))
        for i, value in enumerate(values):
            long = room * value / values[0] / most
            parts.append(f'<rect x="{left}" y="{y + i * bar}" width="{long:.1f}" height="{bar - 2}" fill="{colour(i)}"/>')
            parts.append(text(left + long + 6, y + i * bar + 10, said(values, i, digits)))
        says.append(f"{name}: " + ", ".join(f"{label} {said(values, i, digits)}" for i, label in enumerate(labels)))
    parts.append(f'<path class="one" d="M{left + room / most:.1f} {top - 6}V{height - 8}"/>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"><title>{html.escape(title)}</title>\n'
            f'<desc>{html.escape("; ".join(says))}</desc>\n<style>:root{{{LIGHT}}}'
            f"@media(prefers-color-scheme:dark){{:root{{{DARK}}}}}text{{font:12px system-ui,sans-serif;fill:var(--ink)}}"
            '.title{font-weight:600}.paper{fill:var(--card)}.one{stroke:var(--soft);stroke-dasharray:3 3}</style>\n'
            f'<rect class="paper" width="{width}" height="{height}"/>\n' + "\n".join(parts) + "\n</svg>\n")
