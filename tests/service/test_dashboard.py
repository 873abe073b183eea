"""The page without a browser: what it is told, and who is told."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from choral.errors import OutOfPhase
from choral.protocol.messages import Roster
from choral.service.page import page, view
from choral.service.rounds.events import Moved
from choral.service.state.facts import Facts, RoundRow
from choral.service.state.sqlite import Kept
from choral.vectors.histogram import close_up, histogram
from house import House, house, until

TOKEN = "a-token-that-is-long-enough"
FILES = Path(page.__file__).parent / "dashboard"


@pytest.fixture
async def home(tmp_path):
    async with house(tmp_path, 3) as found:
        yield found


@contextlib.asynccontextmanager
async def client(home: House, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=home.url, **more) as http:
        yield http


async def ask(home: House, path: str, **headers: str) -> httpx.Response:
    async with client(home) as http:
        return await http.get(path, headers=headers)


def open_pages(home: House) -> float | None:
    return home.rounds.metrics.registry.get_sample_value("choral_dashboard_pages")


async def one_round(home: House, *who: int) -> None:
    async with home.players(*who) as players:
        await asyncio.gather(*(player.play(home.head) for player in players))


class Page:
    """An open page: the newest picture, and how often each half came."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.live: dict[str, Any] = {}
        self.raw = b""
        self.count = {"state": 0, "live": 0}
        self.ended = False

    async def follow(self, home: House) -> None:
        async with client(home, timeout=None) as http, http.stream("GET", "/v1/events") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            kind = ""
            async for line in answer.aiter_lines():
                self.raw += line.encode()
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: ") and kind in self.count:
                    setattr(self, kind, json.loads(line.removeprefix("data: ")))
                    self.count[kind] += 1
        self.ended = True


@contextlib.asynccontextmanager
async def open_page(home: House, pages: int = 1) -> AsyncIterator[list[Page]]:
    found = [Page() for _ in range(pages)]
    tasks = [asyncio.create_task(one.follow(home)) for one in found]
    try:
        await until(lambda: all(one.live for one in found))
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# ----- files ----------------------------------------------------------------------------------


async def test_the_page_and_its_files_come_with_a_policy_that_allows_nothing_inline(home):
    found = await ask(home, "/")
    assert found.status_code == 200
    policy = found.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    for name in re.findall(r'(?:src|href)="(dashboard/[^"]+)"', found.text):
        file = await ask(home, f"/{name}")
        assert file.status_code == 200, name
        assert file.headers["content-security-policy"] == policy
        assert file.headers["x-content-type-options"] == "nosniff"
        again = await ask(home, f"/{name}", **{"If-None-Match": file.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", sorted(FILES.glob("*.html")), ids=lambda path: path.name)
def test_a_page_holds_no_script_no_style_and_nothing_from_elsewhere(path):
    text = path.read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert not re.search(r"<script(?![^>]*src=)", text)
    assert not re.search(r"https?://|//[a-z]", text)
    assert 'lang="en"' in text
    assert 'name="viewport"' in text


def test_the_scripts_only_ever_put_text_in_as_text():
    for path in FILES.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text()
        )


@pytest.mark.parametrize("name", ["app.py", "..%2fapp.py", "nothing.js", "%00", "index.html%00.js"])
async def test_no_other_file_is_given_out(home, name):
    assert (await ask(home, f"/dashboard/{name}")).status_code == 404


# ----- who may look ---------------------------------------------------------------------------

ALL = ("/", "/v1/events", "/v1/versions?before=1", "/models/0")


async def test_off_is_off(tmp_path):
    async with house(tmp_path, 3, settings={"dashboard": "off"}) as home:
        for path in (*ALL, "/dashboard/page.js"):
            assert (await ask(home, path)).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "evil.example:80"}, {"X-Forwarded-For": "127.0.0.1"},
     {"Forwarded": "for=1.1.1.1"}, {"Via": "1.1 proxy"}, {"X-Real-IP": "10.0.0.1"},
     {"Host": "127.0.0.1.evil.example"}],
)  # fmt: skip
async def test_local_is_this_machine_by_its_own_name_and_without_a_proxy_between(home, headers):
    for path in (*ALL, "/dashboard/page.js"):
        found = await ask(home, path, **headers)
        assert (found.status_code, found.json()["type"]) == (403, "urn:choral:problem:not-local"), path
    for path in ("/v1/status", "/v1/rounds", "/v1/snapshot"):
        assert (await ask(home, path, **headers)).status_code == 401


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1:1", "[::1]:8750", "127.1.2.3"])
async def test_a_loopback_name_is_local(home, name):
    assert (await ask(home, "/", Host=name)).status_code == 200


async def test_a_token_opens_the_page_from_anywhere_and_leaves_the_address_at_once(tmp_path):
    async with house(tmp_path, 3, settings={"dashboard": "token", "dashboard_token": TOKEN}) as home:
        far = {"Host": "aggregator.example", "X-Forwarded-For": "10.1.1.1"}
        async with client(home, headers=far) as http:
            for path in ALL[1:]:
                assert (await http.get(path)).status_code == 401, path
            form = await http.get("/")
            assert form.status_code == 401
            assert 'type="password"' in form.text
            assert (await http.get("/?token=wrong")).status_code == 401
            assert (await http.post("/", data={"token": "wrong"})).status_code == 401
            assert not http.cookies
            entered = await http.get(f"/?token={TOKEN}")
            assert (entered.status_code, entered.headers["location"]) == (303, "./")
            cookie = entered.headers["set-cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Lax" in cookie
            assert TOKEN not in cookie
            assert (await http.get("/")).status_code == 200
            assert (await http.get("/models/0")).status_code == 200
        async with client(home, headers=far) as http:
            assert (await http.post("/", data={"token": TOKEN})).status_code == 303
            assert (await http.get("/")).status_code == 200
        async with client(home, headers={**far, "Authorization": f"Bearer {TOKEN}"}) as http:
            assert (await http.get("/v1/versions?before=1")).status_code == 200


async def test_a_person_who_may_not_look_is_told_so_in_words(home):
    found = await ask(home, "/", Host="elsewhere", Accept="text/html,*/*")
    assert found.status_code == 403
    assert "closed here" in found.text


async def test_with_a_token_the_own_machine_needs_it_too(tmp_path):
    async with house(tmp_path, 3, settings={"dashboard": "token", "dashboard_token": TOKEN}) as home:
        assert (await ask(home, "/")).status_code == 401
        assert (await ask(home, "/", Cookie="choral_dashboard=guess")).status_code == 401


async def test_an_empty_token_lets_nobody_in(home):
    assert (await ask(home, "/?token=", Host="elsewhere")).status_code == 403
    async with client(home) as http:
        assert (await http.post("/", data={"token": ""})).status_code == 401


async def test_members_have_the_same_picture_by_their_signature(home):
    async with home.player(1) as player:
        found = json.loads(await player.transport.get("/v1/snapshot"))
    assert found["state"]["members"] == ["m1", "m2", "m3"]
    assert found["live"]["members"][0] == "c"


# ----- what is told ---------------------------------------------------------------------------


async def test_a_page_gets_the_whole_picture_and_then_what_changes(home):
    async with open_page(home, 3) as pages:
        assert pages[0].state["version"] == 0
        assert pages[0].state["security"]["t"] == 2
        await one_round(home, 1, 2, 3)
        await until(lambda: all(one.state["version"] == 1 and one.state["grid"] for one in pages))
        assert len({json.dumps(one.state) for one in pages}) == 1
        assert pages[0].state["grid"][0]["cells"] == "iii"
        assert pages[0].state["curve"][0][0] == 0
        assert pages[0].count["state"] <= 6
        assert open_pages(home) == 3
    await until(lambda: open_pages(home) == 0)


async def test_the_stations_show_who_has_sent_and_who_is_awaited(home):
    async with open_page(home) as (one,), home.players(1, 2, 3) as players:
        await until(lambda: one.live["training"]["count"] == 3)
        machines = [player.machine(home.head) for player in players]
        joined = [asyncio.create_task(p.advertise(m)) for p, m in zip(players[:2], machines[:2], strict=True)]
        await until(lambda: one.live["cohorts"] and one.live["cohorts"][0]["sent"] == 2)
        cohort = one.live["cohorts"][0]
        assert (cohort["station"], cohort["needed"]) == ("advertise", 3)
        assert sorted(cohort["stations"]["advertise"]["in"]["names"]) == ["m1", "m2"]
        assert one.live["training"]["names"] == ["m3"]
        assert 0 < cohort["deadline"] - one.live["clock"] <= 5
        roster = await players[2].advertise(machines[2])
        await asyncio.gather(*joined)
        sharing = asyncio.create_task(players[0].share(machines[0], roster))
        await until(lambda: one.live["cohorts"][0]["station"] == "share" and one.live["cohorts"][0]["sent"])
        station = one.live["cohorts"][0]["stations"]["share"]
        assert station["in"]["names"] == ["m1"]
        assert sorted(station["awaited"]["names"]) == ["m2", "m3"]
        sharing.cancel()


async def test_who_is_kept_out_who_rests_and_what_is_stuck_is_on_the_page(tmp_path):
    async with house(tmp_path, 4) as home, open_page(home) as (one,), home.players(1, 2, 3):
        await until(lambda: one.live["training"]["count"] == 3)
        assert (one.live["stuck"], one.live["kept_out"]["count"]) == (None, 0)
        home.store.keep_out("m3", Kept(b"r" * 32, "its shares do not fit", 1e9))
        rests = home.player(4)  # it has no other request open
        polling = asyncio.create_task(rests.transport.get("/v1/records?after=0&resting=spent"))
        await until(lambda: one.live["resting"]["spent"]["count"])
        assert one.live["resting"] == {
            "spent": {"names": ["m4"], "count": 1}, "pause": {"names": [], "count": 0},
        }  # fmt: skip
        await until(lambda: one.live["kept_out"]["count"])
        kept = {"name": "m3", "round": "72" * 6, "reason": "its shares do not fit", "since": 1e9}
        assert one.live["kept_out"]["named"] == [kept]
        assert one.live["stuck"].startswith("2 of 4 members can send, a cohort needs 3 (kept out: m3; ")
        assert one.live["training"]["names"] == ["m1", "m2"]
        home.store.readmit("m3")
        await until(lambda: not one.live["stuck"])
        polling.cancel()
        await rests.leave()


async def test_who_waits_for_another_cohort_is_told_apart_from_who_is_absent(tmp_path):
    async with house(tmp_path, 4) as home, open_page(home) as (one,), home.players(1, 2, 3, 4) as players:
        machines = [player.machine(home.head) for player in players]
        paths = ["/v1/rounds?without=m2", *["/v1/rounds"] * 3]
        joining = [
            asyncio.create_task(player.send("POST", path, machine.advertise, Roster))
            for player, path, machine in zip(players, paths, machines, strict=True)
        ]
        await until(lambda: one.live["cohorts"] and one.live["cohorts"][0]["station"] == "share")
        why = "m1 asked for cohorts without it"
        assert one.live["cohorts"][0]["apart"] == {"named": [{"name": "m2", "why": why}], "count": 1}
        (told,) = home.status()["cohorts"]
        assert told["apart"] == {"m2": why}
        assert one.live["training"]["count"] == 0
        with pytest.raises(OutOfPhase):
            await joining[1]
        home.rounds.conductor.running[bytes.fromhex(told["round"])].deadline = 0.0
        await until(lambda: one.state["grid"])
        assert one.state["grid"][0]["cells"][1] == view.APART
        for task in joining:
            task.cancel()


async def test_a_member_that_goes_away_is_shown_where_it_was_lost(tmp_path):
    async with house(tmp_path, 4) as home, open_page(home) as (one,):
        async with home.players(1, 2, 3, 4) as players:
            playing = [asyncio.create_task(player.play(home.head)) for player in players[1:]]
            await players[0].play(home.head, until="mask")
            await players[0].leave()
            await asyncio.gather(*playing)
        await until(lambda: one.state["version"] == 1 and one.state["grid"])
        assert one.state["grid"][0]["cells"] == "miii"


async def test_nothing_is_drawn_while_nobody_looks(home):
    async with open_page(home):
        pass

    def looking() -> bool:
        return any("Feed._look " in repr(task.get_coro()) for task in asyncio.all_tasks())

    await until(lambda: not looking())
    await one_round(home, 1, 2, 3)
    assert not looking()


async def test_pages_are_told_at_most_a_few_times_a_second(home):
    async with open_page(home) as (one,):
        before, loop = one.count["live"], asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < 1.5:
            home.rounds.events.say(Moved())
            with home.rounds.presence.connection("m1", "0" * 16):
                await asyncio.sleep(0.01)
        assert one.count["live"] - before <= 7


async def test_no_more_pages_than_there_is_room_for(home, monkeypatch):
    monkeypatch.setattr("choral.service.page.feed.PAGES", 2)
    async with open_page(home, 2):
        found = await ask(home, "/v1/events")
        assert (found.status_code, found.json()["type"]) == (503, "urn:choral:problem:too-many-pages")


async def test_pages_end_when_the_aggregator_stops(home):
    async with open_page(home) as (one,):
        await home.rounds.drain(0)
        await until(lambda: one.ended)


async def test_what_was_seen_is_flat_and_the_sum_is_not(home):
    await one_round(home, 1, 2, 3)
    seen = json.loads((await ask(home, "/v1/snapshot")).content)["state"]["saw"]
    assert seen["survivors"] == 3
    assert sum(seen["masked"]) == sum(seen["sum"]) == home.aggregator.task.dimension
    assert sum(count > 0 for count in seen["sum"]) <= 2  # all near zero


def test_the_histogram_of_a_uniform_vector_is_flat_and_that_of_small_numbers_is_not():
    rng = np.random.default_rng(0)
    flat = histogram(rng.integers(0, 2**32, 100_000, dtype=np.uint32))
    expected = 100_000 / 32
    assert sum((count - expected) ** 2 / expected for count in flat) < 70  # chi-square, 31 degrees
    small = rng.normal(0, 1000, 100_000).astype(np.int32).view(np.uint32)
    assert histogram(small)[15] + histogram(small)[16] == 100_000
    near = close_up(small)
    assert max(near) > 3 * (sum(near) / 32)
    assert histogram(np.array([2**31, 2**31 - 1, 0], np.uint32))[0] == 1


@pytest.mark.parametrize(
    ("details", "state", "cells"),
    [
        ({"roster": ["a", "b"], "survivors": ["a", "b"], "late": ["c"]}, "done", "iil-"),
        (
            {"roster": ["a", "b", "c"], "survivors": ["a"], "dropped": {"b": "share", "c": "mask"}},
            "done",
            "ism-",
        ),
        ({"roster": ["a", "b", "c"], "survivors": [], "missing": ["c"]}, "aborted", "aax-"),
        ({"reason": "the aggregator was restarted"}, "aborted", "----"),
        ({"roster": ["a"], "survivors": ["a"], "late": ["b", "c"], "apart": ["b"]}, "done", "iwl-"),
    ],
)
def test_what_became_of_each_member_is_one_letter(details, state, cells):
    assert view.cells(RoundRow(b"", 0, 0.0, state, 1.0, Facts.read(details)), "abcd") == cells


def test_a_long_curve_keeps_its_ends():
    points = [(i, i / 5000, 1.0) for i in range(5000)]
    thin = view.thin(points)
    assert (len(thin), thin[0], thin[-1]) == (400, points[0], points[-1])
    assert view.thin(points[:3]) == points[:3]


async def test_every_version_can_be_downloaded_and_is_what_its_record_names(home):
    await one_round(home, 1, 2, 3)
    lines = json.loads((await ask(home, "/v1/versions?before=2")).content)
    assert [line["version"] for line in lines] == [1, 0]
    for line in lines:
        found = await ask(home, f"/models/{line['version']}")
        assert hashlib.sha256(found.content).hexdigest() == line["model"]
        assert (
            found.headers["content-disposition"]
            == f'attachment; filename="house-v{line["version"]}.safetensors"'
        )
    assert (await ask(home, "/models/9")).status_code == 404
    assert json.loads((await ask(home, "/v1/versions?before=0")).content) == []


async def test_a_model_that_was_changed_on_disk_is_not_given_out(home):
    home.store._db.execute("update pieces set data = x'00' where digest = ?", (home.head.parameters,))
    found = await ask(home, "/models/0")
    assert (found.status_code, found.json()["type"]) == (500, "urn:choral:problem:record")


async def test_a_large_federation_is_summed_up(tmp_path):
    members = 260
    async with house(tmp_path, members, largest_cohort=256) as home:
        found = json.loads((await ask(home, "/v1/snapshot")).content)
    assert (len(found["state"]["members"]), found["state"]["unnamed"]) == (view.NAMED, members - view.NAMED)
    assert found["live"]["enrolled"] == members
