"""`choral watch`: the dashboard in a terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from choral.cli.drawing import blocks
from choral.cli.left_out import Standing, left_out
from choral.cli.terminal import console, percent, size
from choral.cli.values import Number
from choral.errors import AggregatorUnavailable, ChoralError, ParameterError
from choral.inspection.reading import snapshot_of, understood
from choral.protocol.rounds import LABELS

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
STATIONS = ("train", "advertise", "share", "mask", "reveal")
CELLS = {
    "i": ("●", "green", "in the sum"),
    "l": ("◐", "yellow", "too late"),
    "-": ("○", "dim", "absent"),
    "w": ("◇", "yellow", "kept apart"),
    "s": ("s", "bold red", "dropped before its shares"),
    "m": ("m", "bold red", "dropped before its masked update"),
    "a": ("▲", "magenta", "in an aborted round"),
    "x": ("✕", "bold magenta", "missing, round aborted"),
}
_SIGNS = {"in": ("✓", "green"), "awaited": ("…", "yellow"), "gone": ("✕", "red")}
_PHASES = (*LABELS, "sum")
_FLOOR = -0.15  # so that an accuracy of nothing is still a line
_ROWS = 24  # members by name


@click.command(epilog="Example:  choral watch fed/aggregator     choral watch http://127.0.0.1:8750")
@click.argument("where", metavar="URL|FOLDER")
@click.option("--ca", type=FILE, help="The authority to trust for an https URL.")
@click.option("--every", default=1.0, show_default=True, type=Number(0.2, 60), help="Seconds.")
@click.option("--once", is_flag=True, help="One picture, and that was it. So too when this is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="The picture as one JSON object, once.")
def watch(where: str, ca: Path | None, every: float, once: bool, as_json: bool) -> None:
    """What is going on, live: the round's stations, the curve, who took part, what it cost.

    By URL it works on the aggregator's own machine; from elsewhere give a participant's folder, whose key
    signs the request. Ctrl-C ends it.
    """
    if as_json:
        click.echo(json.dumps(snapshot_of(where, ca)))
        return
    picture = snapshot_of(where, ca)
    if once or not console.is_terminal:
        with understood(where):
            console.print(drawn(picture))
        return
    trouble = None
    with understood(where):
        live = Live(drawn(picture), console=console, screen=True, auto_refresh=False)
        try:  # not `with`: Ctrl-C in the first picture would leave the terminal on the other screen
            live.start(refresh=True)
            while True:
                time.sleep(every)
                try:
                    picture, trouble = snapshot_of(where, ca), None
                except (AggregatorUnavailable, ParameterError) as error:  # it may be restarted
                    trouble = error
                live.update(drawn(picture, trouble), refresh=True)
        finally:
            live.stop()


def drawn(picture: dict[str, Any], trouble: ChoralError | None = None) -> RenderableType:
    """The whole picture for a terminal. What others named is printed as text, never as markup."""
    state, live = picture["state"], picture["live"]
    parts: list[RenderableType] = [_head(state, live)]
    if trouble is not None:
        parts.append(Text(f"the aggregator does not answer, trying again: {trouble.reason}", "red"))
    cohorts = live["cohorts"] or ([] if live["over"] else [None])  # over: nobody is at any station
    for i, cohort in enumerate(cohorts):
        parts.append(_round(cohort, live, picture["live"].get("clock", 0.0), training=i == 0))
    parts += [Text(line, style) for style, line in left_out(_standing(live))]
    parts += [_curve(state), _grid(state), _costs(state)]
    aborted = [row for row in state["grid"] if row["state"] == "aborted"][-3:]
    for row in reversed(aborted):
        parts.append(Text(f"aborted in phase {row['phase'] or '?'}: {row['reason']}", "magenta"))
    return Group(*parts)


def _standing(live: dict[str, Any]) -> Standing:
    cohorts = [] if live["over"] else live["cohorts"]
    return Standing(
        stuck=live["stuck"] or "",
        kept_out=[(one["name"], one["round"], one["reason"]) for one in live["kept_out"]["named"]],
        apart=[(one["name"], one["why"]) for cohort in cohorts for one in cohort["apart"]["named"]],
        spent=[] if live["over"] else live["resting"]["spent"]["names"],
        pause=[] if live["over"] else live["resting"]["pause"]["names"],
    )


def _head(state: dict[str, Any], live: dict[str, Any]) -> Text:
    last = state["curve"][-1] if state["curve"] else None
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(state["federation"], "bold")
    head.append(f"  version {live['version']} of {state['rounds']}")
    head.append(", training is over" if live["over"] else "")
    head.append(f"  accuracy {percent(last[1])} at version {last[0]}" if last else "")
    if state["best"]:
        head.append(f", best {percent(state['best']['accuracy'])} at version {state['best']['version']}")
    head.append(f"  {live['connected']} of {live['enrolled']} members connected")
    return head


def _round(
    cohort: dict[str, Any] | None, live: dict[str, Any], clock: float, *, training: bool
) -> RenderableType:
    inner = []
    for i, name in enumerate(STATIONS, 1):
        inside = Text(no_wrap=True, overflow="ellipsis")
        here = cohort is not None and cohort["station"] == name
        if name == "train" and training:
            _names(inside, live["training"], "•", "cyan")
        elif cohort is not None:
            for kind, (sign, style) in _SIGNS.items():
                _names(inside, cohort["stations"].get(name, {}).get(kind), sign, style)
        inside.rstrip()
        inner.append((f"{i} {name}", inside, "bold yellow" if here else "dim"))
    tall = max(str(inside).count("\n") for _, inside, _ in inner) + 3
    boxes = [
        Panel(inside, title=title, width=22, height=tall, border_style=style)
        for title, inside, style in inner
    ]
    if cohort is None:
        say = "no round is open: members are training, resting or away"
    else:
        left = max(0.0, cohort["deadline"] - clock)
        say = (
            f"{'round ' + cohort['round'] if cohort['round'] else 'an open cohort'} from version"
            f" {cohort['base']}, phase {cohort['phase']}: {cohort['sent']} in, at least {cohort['needed']}"
            f" needed, {left:.0f} s left"
        )
        if names := cohort["waiting_for"]["names"]:
            say += f", waiting for {', '.join(names[:6])}{' …' if len(names) > 6 else ''}"
    return Group(Text(say), Columns(boxes, padding=(0, 1)))


def _names(inside: Text, some: dict[str, Any] | None, sign: str, style: str) -> None:
    if not some or not some["count"]:
        return
    for name in some["names"][:8]:
        inside.append(f"{sign} {name}\n", style)
    if some["count"] > 8:
        inside.append(f"  and {some['count'] - 8} more\n", "dim")


def _curve(state: dict[str, Any]) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    values = [point[1] for point in state["curve"] if point[1] is not None][-60:]
    if values:
        text.append("accuracy  ")
        text.append("".join(blocks(values, _FLOOR, 1)), "cyan")
        text.append(f"  {percent(values[-1])}")
    return text


def _grid(state: dict[str, Any]) -> RenderableType:
    if not state["grid"]:
        return Text("no round has ended yet", "dim")
    columns = state["grid"][-40:]
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(state["members"][:_ROWS]):
        line = Text(no_wrap=True)
        for row in columns:
            sign, style, _ = CELLS.get(row["cells"][i], ("?", "", ""))
            line.append(sign, style)
        table.add_row(Text(name), line)
    more = len(state["members"]) - _ROWS + state["unnamed"]
    legend = Text("   ").join(Text(f"{sign} {what}", style) for sign, style, what in CELLS.values())
    return Group(table, Text(f"and {more} more members", "dim") if more > 0 else Text(""), legend)


def _costs(state: dict[str, Any]) -> RenderableType:
    done = [row for row in state["grid"] if row["state"] == "done"]
    if not done:
        return Text("")
    table = Table("median of a round", *_PHASES, box=None, padding=(0, 2, 0, 0))
    table.add_row(
        "time", *(_seconds(_median([row["phases"].get(name, 0) for row in done])) for name in _PHASES)
    )
    for what, key in (("bytes in", "in"), ("bytes out", "out")):
        table.add_row(what, *(size(_median([row[key].get(name, 0) for row in done])) for name in _PHASES))
    return table


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


COMMANDS = (watch,)
