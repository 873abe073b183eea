"""The report of `choral plot`: one HTML file that needs nothing else, not even a network or a script."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from html import escape
from statistics import median
from typing import Any

from choral.cli.drawing import bars, curve, stacks
from choral.cli.terminal import percent, size
from choral.cli.watch import CELLS
from choral.inspection.history import Findings
from choral.service.page.page import FILES

PHASES = (
    ("advertise", "advertise (joining)"), ("share", "share"), ("mask", "mask"), ("consistency", "sign"),
    ("unmask", "reveal"), ("sum", "sum"),
)  # fmt: skip
_CLASS = {"i": "i", "l": "l", "-": "a", "w": "l", "s": "s", "m": "m", "a": "b", "x": "x"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # no script at all, nothing from elsewhere
_GRID = 60  # rounds a row of the grid


def report(found: Findings) -> str:
    """The whole file."""
    state = found.state
    style = (FILES / "style.css").read_text()
    sections = [
        _figures(state), _curves(state), _grid(found), _members(found), _costs(state), _saw(state),
        _rounds(state), _log(state), _security(found),
    ]  # fmt: skip
    name, made = escape(state["federation"]), time.strftime("%Y-%m-%d %H:%M:%S %Z")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{name}: report</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<header><h1>{name}</h1><p class="line">report of {escape(made)}</p></header>\n'
        "<main>\n" + "\n".join(sections) + "\n</main>\n"
        f'<footer><p class="quiet">Choral {escape(state["choral"])}. Every record and link of the log was'
        " verified for this report. What is here is what everybody in the federation may know.</p></footer>\n"
        "</body>\n</html>\n"
    )


def _card(title: str, inside: str, *, wide: bool = True) -> str:
    return f'<section class="card{" wide" if wide else ""}"><h2>{escape(title)}</h2>{inside}</section>'


def _table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()
) -> str:
    """A table; cells are HTML already."""

    def cell(tag: str, i: int, text: str) -> str:
        return f"<{tag}{' class=n' if i in numbers else ''}>{text}</{tag}>"

    head = "".join(cell("th", i, escape(text)) for i, text in enumerate(heads))
    body = "".join(f"<tr>{''.join(cell('td', i, text) for i, text in enumerate(row))}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><caption class="hidden">{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _entries(entries: Sequence[tuple[str, str]], kind: str) -> str:
    inside = "".join(f"<div><dt>{escape(name)}</dt><dd>{text}</dd></div>" for name, text in entries)
    return f'<dl class="{kind}">{inside}</dl>'


def _figures(state: dict[str, Any]) -> str:
    last = state["curve"][-1] if state["curve"] else None
    done = sum(row["state"] == "done" for row in state["grid"])
    best = state["best"]
    return _entries(
        [
            ("Model version", f"{state['version']}<small>of {state['rounds']}"
             f"{', training is over' if state['over'] else ''}</small>"),
            ("Accuracy", f"{percent(last[1] if last else None)}<small>"
             f"{f'of version {last[0]}, on held-out data' if last else 'not measured'}</small>"),
            ("Best", f"{percent(best['accuracy'] if best else None)}<small>"
             f"{_best(best) if best else 'no two versions compare'}</small>"),
            ("Rounds", f"{done}<small>and {len(state['grid']) - done} without a sum</small>"),
        ],
        "figures",
    )  # fmt: skip


def _best(best: dict[str, Any]) -> str:
    return f"version {best['version']}, on {_on(best['members'], best['examples'])}"


def _on(members: int | None, examples: float) -> str:
    return "–" if members is None else f"{examples:g} examples of {members} members"


def _curves(state: dict[str, Any]) -> str:
    drawn = []
    for k, name, share in ((1, "accuracy", True), (2, "loss", False)):
        points = [(point[0], point[k]) for point in state["curve"] if point[k] is not None]
        chart = curve(points, kind=name, label=f"{name} by version on members' held-out data", share=share)
        drawn.append(f"<figure><figcaption>{name.capitalize()} by version</figcaption>{chart}</figure>")
    return _card("Is it learning?", f'<div class="pair">{"".join(drawn)}</div>')


def _sign(cell: str, title: str = "") -> str:
    sign, _, what = CELLS[cell]
    return (
        f'<span class="c-{_CLASS[cell]}" role="img" aria-label="{what}" title="{escape(title)}">{sign}</span>'
    )


def _grid(found: Findings) -> str:
    grid = found.state["grid"]
    parts = ['<ul class="legend">']
    parts += [f"<li>{_sign(cell)} {what}</li>" for cell, (_, _, what) in CELLS.items()]
    parts.append("</ul>")
    for start in range(0, len(grid), _GRID):
        rows = grid[start : start + _GRID]
        heads = "".join(
            f"<td>{row['version'] if row['version'] and row['version'] % 5 == 0 else ''}</td>" for row in rows
        )
        body = "".join(
            f'<tr><th scope="row">{escape(name)}</th>'
            + "".join(f"<td>{_sign(row['cells'][i], name + ', round ' + row['id'])}</td>" for row in rows)
            + "</tr>"
            for i, name in enumerate(found.names)
        )
        parts.append(
            f'<div class="scroll"><table class="grid"><thead><tr><th>Member</th>{heads}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
    return _card("Who took part", "".join(parts) if grid else '<p class="quiet">No round has ended yet.</p>')


def _members(found: Findings) -> str:
    grid = found.state["grid"]
    rows = []
    for i, name in enumerate(found.names):
        seen = [row["cells"][i] for row in grid]
        rows.append(
            [
                escape(name),
                *(str(sum(cell in kind for cell in seen)) for kind in ("i", "l", "-", "w", "sm", "ax")),
            ]
        )
    heads = ("Member", "in the sum", "too late", "absent", "kept apart", "dropped", "in aborted rounds")
    return _card("Members", _table("Rounds by member", heads, rows, range(1, 7)))


def _costs(state: dict[str, Any]) -> str:
    done = [row for row in state["grid"] if row["state"] == "done"]
    names = [name for name, _ in PHASES[1:]]
    chart = stacks(
        [[row["phases"].get(name, 0.0) for name in names] for row in done[-200:]],
        label="Seconds by phase and round, without the wait for members to join",
    )
    rows = []
    for k, (name, label) in enumerate(PHASES):
        seconds = [row["phases"][name] for row in done if name in row["phases"]]
        swatch = (
            f'<svg class="swatch" viewBox="0 0 10 10"><rect class="b{k}" width="10" height="10"/></svg>'
            if k
            else ""
        )
        rows.append([
            swatch + escape(label),
            _spread(seconds, lambda value: f"{1000 * value:.1f} ms" if value < 1 else f"{value:.2f} s"),
            _spread([row["in"].get(name, 0) for row in done], size),
            _spread([row["out"].get(name, 0) for row in done], size),
        ])  # fmt: skip
    heads = ("Phase", "time", "bytes in", "bytes out")
    up = [sum(row["in"].values()) / row["roster"] for row in done if row["roster"]]
    each = (
        f'<p class="quiet">Figures are least / median / most of a round. A member sends {size(median(up))} a'
        f" round, {size(4 * state['security']['dimension'])} of them the update itself.</p>"
        if up
        else ""
    )
    table = _table("Costs by phase", heads, rows, (1, 2, 3))
    return _card("What a round cost", f'<div class="pair"><div>{chart}</div><div>{table}{each}</div></div>')


def _spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    if not values:
        return "–"
    return " / ".join(form(value) for value in (min(values), median(values), max(values)))


def _saw(state: dict[str, Any]) -> str:
    saw = state["saw"]
    if not saw:
        return ""
    drawn = "".join(
        f"<figure><figcaption>{caption}</figcaption>{bars(saw[key], kind=kind, label=label)}</figure>"
        for key, kind, caption, label in (
            ("masked", "", "One masked update, as it arrived", "histogram of a masked vector: flat"),
            ("sum", "sum", "The sum, on the same scale", "histogram of the sum: not flat"),
            ("close_up", "sum", "The sum, from near", "histogram of the sum over its own range"),
        )
    )
    return _card("What the aggregator saw", f'<div class="pair three">{drawn}</div>')


def _rounds(state: dict[str, Any]) -> str:
    rows = []
    for row in reversed(state["grid"]):
        opened = _time(row["opened"])
        what = f"version {row['version']}" if row["state"] == "done" else f"aborted: {row['reason'] or '?'}"
        if row["missing"]:
            what += f" (missing: {', '.join(row['missing'])})"
        if row["culprits"]:
            what += f" (accused: {', '.join(row['culprits'])})"
        rows.append([
            f"<code>{row['id']}</code>", opened, str(row["base"]), f"{row['survivors']} of {row['roster']}",
            "–" if row["seconds"] is None else f"{row['seconds']:.2f} s", size(sum(row["in"].values())),
            size(sum(row["out"].values())), escape(what),
        ])  # fmt: skip
    heads = ("Round", "opened", "from version", "in the sum", "took", "in", "out", "led to")
    return _card("Rounds", _table("Rounds, newest first", heads, rows, (2, 4, 5, 6)))


def _log(state: dict[str, Any]) -> str:
    rows = [
        [
            f"{line['version']}{' <span class=best>best</span>' if line['best'] else ''}",
            f"<code>{line['model']}</code>", f"<code>{line['record'][:16]}…</code>",
            _time(line["made"]), str(line["survivors"] or "–"),
            "–" if line["weight"] is None else str(line["weight"]),
            percent(line["accuracy"]), "–" if line["loss"] is None else f"{line['loss']:.4f}",
            _on(line["measured_by"], line["measured_on"]),
        ]
        for line in state["log"]
    ]  # fmt: skip
    heads = (
        "Version",
        "SHA-256 of the model",
        "record",
        "members",
        "examples",
        "right",
        "loss",
        "measured on",
    )
    return _card("Model log", _table("Versions, newest first", heads, rows, (4, 5, 6, 7, 8)))


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _security(found: Findings) -> str:
    s, state = found.state["security"], found.state
    seen = f"{found.worst_error:.1e}" if found.worst_error is not None else "–"
    entries = [
        (f"Must stay to the end: {s['quorum']} of {s['n']}",
         f"Up to {s['n'] - s['quorum']} of a full cohort may drop. No cohort is smaller than {s['minimum']},"
         f" and {s['t']} must reveal."),
        (f"Threshold t = {s['t']} of n = {s['n']}",
         f"So many of a cohort of {s['n']} can lift the masks of a sum together, and no fewer."),
        (f"Tolerated c = {s['c']}",
         f"So many may collude with the aggregator; at least {s['t'] - s['c']} honest members are in a sum."),
        (f"Smallest cohort: {s['minimum']}", "By this participant's own federation file."),
        (f"Ring plan: {s['bits']} bits in 2³²",
         f"Clipped at ±{s['clip']:g}, weights capped at {s['weight_cap']}, cohorts up to"
         f" {s['largest_cohort']}; {s['dimension']} parameters."),
        (f"Error of a mean: at most {s['error_bound']:.1e}",
         f"A coordinate, when all have the capped weight. The largest bound of the rounds so far: {seen}."),
        (f"Sealing: {escape(s['sealing'])}", f"Versions a base may be old: {s['max_staleness']}."),
        ("Model and rule", escape(f"{state['model']['name']} with {state['model']['features']} inputs and"
                                  f" {state['model']['classes']} classes, {state['rule']}")),
        ("Task", f"<code>{state['task']}</code>"),
    ]  # fmt: skip
    warning = f'<p class="warning">{escape(s["warning"])}</p>' if s["warning"] else ""
    return _card("Security parameters", warning + _entries(entries, "trust"))
