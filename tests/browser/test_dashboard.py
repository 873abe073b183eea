"""The page in a real browser, over a federation of real processes: a member dies and comes back.

Needs Chromium and the package playwright (locks/browser.lock). CHORAL_CHROMIUM names the browser
if it is not found by itself, CHORAL_SCREENSHOTS a folder to keep the pictures in.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHORAL_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
MEMBERS = 5
HTML = """<img src=x onerror="document.title='pwned'"><b>five</b>"""
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


class Federation:
    """An aggregator and five members as processes; the federation's name holds HTML."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.root, self.url = root, f"http://127.0.0.1:{self.port}"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._run("data", "split", "shards", "--members", MEMBERS, "--split", "label")
        self._run(
            "init", "fed", "--members", MEMBERS, "--shards", "shards", "--rounds", 5000,
            "--option", "epochs=3", "--option", "rate=0.3", "--url", self.url,
        )  # fmt: skip
        file = root / "fed/aggregator/federation.toml"
        file.write_text(
            re.sub(r"^name = .*$", f"name = {json.dumps(HTML)}", file.read_text(), count=1, flags=re.M)
        )

    def _run(self, *arguments: object) -> None:
        subprocess.run(
            self._command(*arguments), cwd=self.root, check=True, stdout=subprocess.DEVNULL, timeout=60
        )

    @staticmethod
    def _command(*arguments: object) -> list[str]:
        return [sys.executable, "-m", "choral", *map(str, arguments)]

    def start(self, name: str, *arguments: object) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with (self.root / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                self._command(*arguments), cwd=self.root, stdout=log, stderr=log, env=environment
            )

    def serve(self) -> None:
        self.start(
            "aggregator", "serve", "fed/aggregator", "--pace-seconds", 0.6, "--phase-seconds", 6,
            "--gone-seconds", 0.8, "--startup-seconds", 6,
        )  # fmt: skip
        wait(self.alive, 30)

    def join(self, i: int) -> None:
        self.start(f"member-{i}", "join", f"fed/member-{i}", "--data", f"shards/client_{i}_data.npy")

    def alive(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/v1/status", timeout=5).json()
        return found

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def kill_in_the_middle(self, name: str) -> str:
        """SIGKILL to a member that owes the open phase its message; that phase."""

        def owes() -> str | None:
            for cohort in self.status()["cohorts"]:
                phase = str(cohort["phase"])
                if phase in ("share", "mask") and name in cohort["in"]["advertise"]:
                    return None if name in cohort["in"][phase] else phase
            return None

        until = time.monotonic() + 60
        while time.monotonic() < until:
            if owes():
                self.running[name].send_signal(signal.SIGSTOP)
                if phase := owes():
                    self.kill(name)
                    return phase
                self.running[name].send_signal(signal.SIGCONT)
        raise AssertionError(f"{name} never owed anything")

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.wait()


def wait(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def federation(tmp_path_factory) -> Iterator[Federation]:
    found = Federation(tmp_path_factory.mktemp("federation"))
    try:
        found.serve()
        for i in range(1, MEMBERS + 1):
            found.join(i)
        wait(lambda: found.status()["version"] >= 2, 60)
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


class Tab:
    """A page, and everything that its console complained about."""

    def __init__(self, browser: Any, url: str, **more: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESKTOP, **more})
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.complaints: list[str] = []
        self.page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.asked: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = url

    def open(self) -> Any:
        answer = self.page.goto(self.url)
        self.page.wait_for_selector("#log tbody tr")
        self.page.wait_for_selector("#line.live")
        return answer

    def version(self) -> int:
        return int(self.page.inner_text("#figures div:first-child dd").split()[0])

    def cells(self, member: str) -> list[str]:
        """What the grid says of a member, oldest round first."""
        row = self.page.locator("#grid tbody tr", has=self.page.locator(f'th:text-is("{member}")'))
        return [str(cell.get_attribute("aria-label")) for cell in row.locator("[role=img]").all()]

    def shot(self, tmp_path: Path, name: str) -> Path:
        folder = Path(os.environ.get("CHORAL_SCREENSHOTS") or tmp_path)
        self.page.screenshot(path=folder / f"{name}.png", full_page=True)
        return folder / f"{name}.png"


@pytest.fixture
def tab(browser, federation) -> Iterator[Tab]:
    found = Tab(browser, federation.url)
    found.open()
    yield found
    found.context.close()


def test_the_page_is_live_and_asks_nobody_but_the_aggregator(federation, tab):
    first = tab.version()
    wait(lambda: tab.version() > first)
    assert tab.complaints == []
    assert {url.split("/")[2] for url in tab.asked} == {f"127.0.0.1:{federation.port}"}
    policy = httpx.get(federation.url).headers["content-security-policy"]
    assert "unsafe-inline" not in policy
    assert tab.page.locator("#accuracy polyline").count() == 1
    assert "%" in tab.page.inner_text("#figures")


def test_a_name_that_holds_html_is_shown_as_text(tab):
    assert tab.page.inner_text("#federation") == HTML
    assert tab.page.title().startswith(HTML)
    assert tab.page.locator("#federation img, #federation b").count() == 0


def test_html_in_any_name_or_reason_is_shown_as_text(browser, federation):
    state_and_live = httpx.get(f"{federation.url}/v1/snapshot").json()
    evil = json.loads(
        json.dumps(state_and_live)
        .replace('"member-1"', json.dumps(HTML))
        .replace('"softmax"', json.dumps(HTML))
    )
    evil["state"]["grid"].append({
        **evil["state"]["grid"][-1], "state": "aborted", "version": None, "id": HTML, "reason": HTML,
        "phase": HTML, "missing": [HTML], "culprits": [HTML], "cells": "xaaaa",
    })  # fmt: skip
    evil["live"]["training"] = {"names": [HTML], "count": 1}
    kept = {"name": HTML, "round": HTML, "reason": HTML, "since": 0.0}
    evil["live"].update(stuck=HTML, kept_out={"named": [kept], "count": 1})
    body = "".join(f"event: {name}\ndata: {json.dumps(evil[name])}\n\n" for name in ("state", "live"))
    tab = Tab(browser, federation.url)
    tab.page.route("**/v1/events", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    tab.page.goto(federation.url)
    tab.page.wait_for_selector("#aborts li")
    assert HTML in tab.page.inner_text("#aborts")
    assert HTML in tab.page.inner_text("#cohorts")
    assert tab.page.inner_text("#stuck") == f"Stuck: {HTML}."
    assert tab.page.inner_text("#left-out code") == f"choral readmit FOLDER {HTML}"
    assert HTML in tab.page.inner_text("#grid")
    assert tab.page.locator("main img, main b").count() == 0
    assert "pwned" not in tab.page.title().replace(HTML, "")
    tab.context.close()


def test_what_matters_has_a_name_and_works_by_keyboard(tab):
    page = tab.page
    for role, name in (
        ("list", "Stations of the round"), ("img", re.compile("accuracy by version, from")),
        ("img", re.compile("loss by version, from")), ("table", "Members by round, oldest round first"),
        ("img", re.compile("one masked vector over the whole ring: flat")), ("img", re.compile("not flat")),
        ("table", "Model versions, newest first"), ("slider", "Version"), ("link", "Download version 0"),
        ("button", "Check the model of version 0"), ("status", ""),
    ):  # fmt: skip
        assert page.get_by_role(role, name=name).count() >= 1, (role, name)
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((e) => e.tagName)")[0] == "H1"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the round"
    page.focus("#version")
    page.keyboard.press("Home")
    assert page.inner_text("#reading").startswith("version 0:")
    assert page.locator("#accuracy .cursor").count() == 1
    page.get_by_role("button", name="Check the model of version 0").focus()
    page.keyboard.press("Enter")
    assert page.wait_for_selector("#log .good").inner_text().strip() == "✓ matches"
    version = tab.version()
    wait(lambda: tab.version() > version)  # the table is made anew, what was found stays
    assert page.inner_text("#log .good").strip() == "✓ matches"
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == "Check the model of version 0"
    with page.expect_download() as download:
        page.get_by_role("link", name="Download version 0").click()
    assert download.value.suggested_filename == "federation-v0.safetensors"
    assert tab.complaints == []


NAMELESS = """() => [...document.querySelectorAll("button, a, input, svg, [role=img], [role=region]")]
  .filter((e) => !e.closest("[aria-hidden]"))
  .filter((e) => !(e.ariaLabel || e.getAttribute("aria-labelledby") || e.labels?.length))
  .filter((e) => !e.textContent.trim())
  .map((e) => e.outerHTML.slice(0, 80))"""
CONTRAST = """() => {
  const line = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const lum = (rgb) => { const [r, g, b] = rgb.map(line);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const rgb = (s) => s.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c !== "rgba(0, 0, 0, 0)") return rgb(c); } return [255, 255, 255]; };
  const worst = {};
  for (const e of document.querySelectorAll("p, dt, dd, td, th, h1, h2, h3, li, button, a, figcaption")) {
    if (!e.textContent.trim() || e.closest("[hidden], .hidden, .skip")) continue;
    const a = lum(rgb(getComputedStyle(e).color)), b = lum(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) worst[e.tagName + "." + e.className] = Math.round(ratio * 10) / 10;
  }
  return worst;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_fits_a_desktop_and_a_phone_and_can_be_read_light_and_dark(
    browser, federation, tmp_path, view, scheme
):
    tab = Tab(browser, federation.url, viewport=view, color_scheme=scheme, reduced_motion="reduce")
    tab.open()
    tab.page.wait_for_selector("#saw svg")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= view["width"]
    assert tab.page.evaluate(CONTRAST) == {}
    assert (
        tab.page.evaluate("getComputedStyle(document.querySelector('.station')).transitionDuration") == "0s"
    )
    assert tab.shot(tmp_path, f"{view['width']}-{scheme}").stat().st_size > 20_000
    assert tab.complaints == []
    tab.context.close()


def test_a_member_is_killed_and_comes_back_before_everybodys_eyes(federation, tab, tmp_path):
    victim = "member-3"
    phase = federation.kill_in_the_middle(victim)
    wanted = "dropped before its shares" if phase == "share" else "dropped before its masked update"
    wait(lambda: wanted in tab.cells(victim), 30)
    wait(lambda: "absent" in tab.cells(victim), 30)
    wait(lambda: victim in tab.page.inner_text("#away"))
    assert "4" in tab.page.inner_text("#figures div:last-child dd")
    tab.shot(tmp_path, "killed")
    federation.join(3)
    wait(lambda: tab.cells(victim)[-1] == "in the sum", 40)
    wait(lambda: victim not in tab.page.inner_text("#away"))
    assert "absent" in tab.cells(victim)
    tab.shot(tmp_path, "returned")
    assert tab.complaints == []


def test_the_page_survives_a_restart_of_the_aggregator(federation, tab):
    version = tab.version()
    federation.kill("aggregator")
    tab.page.wait_for_selector("#line.lost")
    assert "does not answer" in tab.page.inner_text("#line")
    federation.serve()
    tab.page.wait_for_selector("#line.live")
    wait(lambda: tab.version() > version, 40)
    # nobody can be asked while nobody is there; nothing else went wrong
    assert [text for text in tab.complaints if "net::ERR" not in text] == []


# ----- nothing is cut, and nothing contradicts itself -----------------------------------------

CUT = """() => {
  const wide = document.documentElement.clientWidth, found = [];
  for (const box of document.querySelectorAll(".scroll")) {
    const hint = box.nextElementSibling;
    if (box.scrollWidth > box.clientWidth + 1 && !(hint?.classList.contains("hint") && hint.offsetHeight))
      found.push(`${box.firstElementChild.id} is ${box.scrollWidth} wide in ${box.clientWidth}`);
  }
  const boxes = "#log td, #costs td, #figures dd, #trust dd, #cohorts li, #left-out li, #stuck";
  for (const e of document.querySelectorAll(boxes)) {
    const { left, right, width } = e.getBoundingClientRect();
    if (width && (left < -1 || right > wide + 1 || e.scrollWidth > e.clientWidth + 1))
      found.push(`${e.textContent.slice(0, 30)} from ${left} to ${right}`);
  }
  for (const text of document.querySelectorAll("svg text")) {
    const box = text.getBBox(), view = text.ownerSVGElement.viewBox.baseVal;
    if (box.x < -0.5 || box.x + box.width > view.width + 0.5) found.push(`label ${text.textContent}`);
    const size = text.getBoundingClientRect().height;
    if (size && size < 9) found.push(`label ${text.textContent} is ${size} px high`);
  }
  return found;
}"""


def pictured(browser, federation, view, change, **more: Any) -> Tab:
    """The page over a picture of the real federation, changed."""
    picture = httpx.get(f"{federation.url}/v1/snapshot").json()
    change(picture["state"], picture["live"])
    body = "".join(f"event: {name}\ndata: {json.dumps(picture[name])}\n\n" for name in ("state", "live"))
    tab = Tab(browser, federation.url, viewport=view, reduced_motion="reduce", **more)
    tab.page.route("**/v1/events", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    tab.page.goto(federation.url)
    tab.page.wait_for_selector("#log tbody tr")
    return tab


def as_it_is(state, live):
    row = next(row for row in state["grid"] if row["state"] == "done")
    state["grid"] = [
        {**row, "version": 1000 + i, "phases": {**row["phases"], "mask": 0.1234}} for i in range(40)
    ]


def troubled(state, live):
    """One of each kind: kept out, kept apart, resting for good and for a while, away; and stuck for it."""
    row = next(row for row in state["grid"] if row["state"] == "done")
    state["grid"] = [
        {**row, "version": 1000 + i, "cells": cells} for i, cells in enumerate(("iiiii", "i-lsm", "waax-"))
    ]
    why = "their shares of one secret lie on no one curve: 3 of 5 fit what member-5 signed, and 4 must"
    kept = {"name": "member-5", "round": "9f" * 6, "reason": why, "since": 1.7e9}
    live.update(
        over=False, stuck="2 of 5 members can send, a cohort needs 3 (kept out: member-5)", members="acccn",
        kept_out={"named": [kept], "count": 1},
        resting={"spent": {"names": ["member-4"], "count": 1}, "pause": {"names": ["member-3"], "count": 60}},
    )  # fmt: skip
    some = {"names": ["member-1", "member-2"], "count": 2}
    apart = {"name": "member-2", "why": "member-1 asked for cohorts without it"}
    live["cohorts"] = [{
        "round": "abc", "base": 5, "phase": "share", "station": "share", "deadline": 20.0, "needed": 3,
        "size": 4, "sent": 1, "expected": 4, "waiting_for": some, "stations": {"share": {"awaited": some}},
        "apart": {"named": [apart], "count": 1},
    }]  # fmt: skip


def over(state, live):
    live.update(over=True, cohorts=[], connected=0, members="a" * MEMBERS)


def fresh(state, live):
    state.update(curve=[], grid=[], saw=None, best=None)
    live.update(cohorts=[], version=0)


@pytest.mark.parametrize("view", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("change", [as_it_is, troubled, over, fresh])
def test_nothing_is_cut_at_the_side_without_a_sign(browser, federation, tmp_path, view, change):
    tab = pictured(browser, federation, view, change)
    tab.shot(tmp_path, f"{change.__name__}-{view['width']}")
    assert tab.page.evaluate(CUT) == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= view["width"]
    # in one go: the table is made anew whenever the page hears the picture again
    sides = tab.page.evaluate("""() => [...document.querySelectorAll("#log a, #log button")]
      .map((e) => e.getBoundingClientRect()).map((box) => [box.left, box.right])""")
    assert sides
    assert all(0 <= left < right <= view["width"] for left, right in sides)
    tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_who_takes_no_part_is_named_with_the_reason_and_the_way_back_and_can_be_read(
    browser, federation, tmp_path, view, scheme
):
    tab = pictured(browser, federation, view, troubled, color_scheme=scheme)
    page = tab.page
    assert (
        page.inner_text("#stuck") == "Stuck: 2 of 5 members can send, a cohort needs 3 (kept out: member-5)."
    )
    said = page.locator("#left-out li").all_inner_texts()
    for text, wanted in zip(said, (
        r"Kept out: member-5, since round 9f9f9f9f9f9f \(11-1\d .*\): .* choral readmit FOLDER member-5, ",
        "Kept apart: member-2 waits for another cohort: member-1 asked for cohorts without it.",
        "Resting: member-4: all that may be sent in this task is sent.",
        "Resting: member-3 and 59 more: waiting for a changed model",
    ), strict=True):  # fmt: skip
        assert re.match(wanted, text), text
    assert "Away: member-1." in page.inner_text("#away")
    signs = {str(cell.get_attribute("aria-label")) for cell in page.locator("#grid tbody [role=img]").all()}
    assert len(signs) == 8
    assert "kept apart, waited for another cohort" in signs
    page.hover("#grid tbody tr:first-child th")  # a row under the pointer has another ground
    assert page.evaluate(CONTRAST) == {}
    tab.shot(tmp_path, f"troubled-{view['width']}-{scheme}")
    tab.context.close()


def test_a_table_that_is_too_wide_says_so_and_shows_its_newest_end(browser, federation):
    tab = pictured(browser, federation, PHONE, as_it_is)
    assert tab.page.locator("#grid").locator("xpath=../following-sibling::p[1]").is_visible()
    right = tab.page.evaluate(
        "document.querySelector('#grid tbody tr td:last-child').getBoundingClientRect().right"
    )
    assert right <= PHONE["width"]
    tab.context.close()


def test_when_training_is_over_nobody_is_at_a_station_or_away(browser, federation):
    tab = pictured(browser, federation, DESKTOP, over)
    assert tab.page.inner_text("#cohorts") == "Training is over."
    assert tab.page.locator(".station").count() == 0
    assert not tab.page.locator("#away").is_visible()
    tab.context.close()


def test_a_card_that_has_nothing_to_show_is_not_there(browser, federation):
    tab = pictured(browser, federation, DESKTOP, fresh)
    for name in ("learning", "cost", "seen"):
        assert not tab.page.locator(f"#{name}").is_visible(), name
    assert tab.page.inner_text("#unnamed") == "No round has ended yet."
    tab.context.close()


def test_the_log_has_a_versions_figures_in_its_own_row(browser, federation):
    shown: dict[str, Any] = {}
    tab = pictured(browser, federation, DESKTOP, lambda state, live: shown.update(state))
    line = shown["log"][1]  # the newest is not measured yet
    said = tab.page.inner_text(f'#log tr[data-version="{line["version"]}"]')
    assert f"{100 * line['accuracy']:.1f}%" in said
    assert f"{line['loss']:.4f}" in said
    assert f"{line['measured_on']:.0f} examples of {line['measured_by']} members" in said
    assert re.search(r"\d\d-\d\d \d\d:\d\d:\d\d", said)
    tab.context.close()


def test_how_many_must_stay_and_how_many_can_reveal_are_two_things(browser, federation):
    def three(state, live):
        state["security"].update(n=3, t=2, c=0, quorum=3, minimum=3)

    tab = pictured(browser, federation, PHONE, three)
    said = tab.page.inner_text("#trust")
    assert "Must stay to the end: 3 of 3" in said
    assert "Nobody may drop; in a federation of four, one may." in said
    assert "t = 2 of n = 3" not in said
    tab.context.close()
