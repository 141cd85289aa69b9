"""figures_chart - draws the frontier, accuracy against time a row, as SVG"""
import math

WIDE, HIGH, LEFT, TOP, GAP = 250, 190, 46, 58, 52
CAPTION = 600
KINDS = {"int8": ("#b4541a", "int8 MLPs, oneDNN"), "lookups": ("#1a5fb4", "lookups")}


def ticks_of(low, high, steps):
    """Steps times powers of ten within low..high; powers alone where those are enough."""
    found = [(m, m * 10 ** e) for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
             for m in steps if low <= m * 10 ** e <= high]
    powers = [v for m, v in found if m == 1]
    return powers if len(powers) > 2 else [v for _, v in found]


def scale_of(values, length):
    """Places of values between 0 and length, by logarithms."""
    low, high = min(values) / 1.15, max(values) * 1.15
    return lambda value: length * math.log(value / low) / math.log(high / low), low, high


def best(points):
    """The points that no other is as fast and as accurate as, in their order."""
    out = []
    for p in sorted(points, key=lambda p: (p["ns"], -p["accuracy"])):
        if not out or p["accuracy"] > out[-1]["accuracy"]:
            out.append(p)
    return out


def panel(entry, data, batch, x0, y0):
    points = entry["points"]
    error = {id(p): max(100 - p["accuracy"], 0.01) for p in points}
    x, x_low, x_high = scale_of([p["ns"] for p in points], WIDE)
    y, y_low, y_high = scale_of(list(error.values()), HIGH)
    out = [f'<g transform="translate({x0},{y0})">',
           f'<text class="head" x="0" y="-10">{data}, {batch} row{"s" if batch > 1 else ""} a call</text>',
           f'<rect width="{WIDE}" height="{HIGH}" class="frame"/>']
    for v in ticks_of(x_low, x_high, (1, 3) if x_high > 30 * x_low else (1, 2, 5)):
        out.append(f'<path class="grid" d="M{x(v):.1f} 0V{HIGH}"/>'
                   f'<text x="{x(v):.1f}" y="{HIGH + 15}" text-anchor="middle">{v:g}</text>')
    for v in ticks_of(y_low, y_high, (1, 1.5, 2, 3, 5, 7)):
        out.append(f'<path class="grid" d="M0 {y(v):.1f}H{WIDE}"/>'
                   f'<text x="-6" y="{y(v) + 4:.1f}" text-anchor="end">{100 - v:g}</text>')
    for kind, (colour, _) in KINDS.items():
        mine = [p for p in points if p["who"] == kind]
        line = " ".join(f"{x(p['ns']):.1f},{y(error[id(p)]):.1f}" for p in best(mine))
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out += [f'<circle cx="{x(p["ns"]):.1f}" cy="{y(error[id(p)]):.1f}" r="3" fill="{colour}">'
                f'<title>{p["name"]}: {p["accuracy"]:g} %, {p["ns"]:g} ns</title></circle>' for p in mine]
    return "\n".join(out + ["</g>"])


def frontier(entries, title):
    """entries: {(data, batch): figure with points}; title: of what they have in common."""
    sets = list(dict.fromkeys(data for data, _ in entries))
    batches = sorted({batch for _, batch in entries}, reverse=True)
    width = max(LEFT + len(sets) * (WIDE + GAP), CAPTION)
    height = TOP + len(batches) * (HIGH + GAP) + 14
    legend = "".join(
        f'<circle cx="{LEFT + 6 + 190 * i}" cy="18" r="4" fill="{colour}"/>'
        f'<text x="{LEFT + 16 + 190 * i}" y="22">{name}</text>' for i, (colour, name) in
        enumerate(KINDS.values())) + f'<text class="head" x="{LEFT + 10 + 190 * len(KINDS)}" y="22">{title}</text>'
    panels = [panel(entries[data, batch], data, batch, LEFT + c * (WIDE + GAP), TOP + r * (HIGH + GAP))
              for c, data in enumerate(sets) for r, batch in enumerate(batches)
              if (data, batch) in entries]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="sans-serif" font-size="11">\n<style>text{{fill:#333}}.head{{font-size:13px}}'
            '.frame{fill:none;stroke:#888}.grid{stroke:#ddd}</style>\n'
            f'<rect width="{width}" height="{height}" fill="#fff"/>\n{legend}\n' + "\n".join(panels) +
            f'\n<text x="{LEFT}" y="{height - 8}">across: nanoseconds a row, one thread; up: test accuracy '
            'in %, by the logarithm of the error</text>\n</svg>\n')
