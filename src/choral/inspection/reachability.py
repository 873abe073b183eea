"""What `choral doctor` asks over the network: the way there, clock, certificate, task, log and model."""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from choral import __version__
from choral.binding import certificates
from choral.client.transport import Transport
from choral.client.whole_log import model_of, whole_log
from choral.errors import AggregatorUnavailable, ChoralError, ParameterError
from choral.federation.address import Address, address, why
from choral.federation.enrolment import AGGREGATOR, Participant
from choral.federation.task import Task
from choral.inspection.finding import Finding, Findings
from choral.inspection.proxies import on_the_way
from choral.inspection.reading import asking
from choral.learning import model_file

CLOCK_WARN, CLOCK_FAIL = 5.0, 300.0  # seconds; the second is the aggregator's default
_PRECISION = 2.5  # a Date header holds full seconds, and may be a second old
_TELL = "tell whoever runs the aggregator"
CERTIFICATE_WARN = 14  # days


def reach(me: Participant, url: str) -> Findings:
    """The way there: address, proxy, certificate, an answer, the clocks, readiness."""
    try:
        at = address(url)
    except ParameterError as error:
        yield Finding("address", "fail", error.reason, error.hint)
        return
    url, blocked = at.url, False
    for finding in on_the_way(at, os.environ):
        yield finding
        blocked = blocked or finding.how == "fail"
    if blocked:
        return
    verified: ssl.SSLContext | bool = True
    if at.scheme == "https":
        try:
            verified = certificates.trust(me.authority) if me.authority else True
        except ChoralError as error:
            yield Finding("certificate", "fail", error.reason, error.hint or _TELL)
            return
        yield from _certificate(at, me)
    elif me.name != AGGREGATOR and not at.loopback:
        yield Finding(
            "certificate",
            "warn",
            f"{url} is not encrypted",
            "updates are masked all the same; models, names and metrics can be read on the way",
        )
    asked = time.time()
    try:
        answer = httpx.get(f"{url}/livez", timeout=10, verify=verified, trust_env=not at.loopback)
    except httpx.HTTPError as error:
        wrong = certificates.explain(error, url, own_authority=me.authority is not None)
        if wrong:
            yield Finding("reachability", "fail", wrong.reason, wrong.hint or _TELL)
        else:
            yield Finding(
                "reachability",
                "fail",
                f"{url}: {why(error)}",
                "is the aggregator running, is this its address, does a firewall let it through?",
            )
        return
    took = time.time() - asked
    try:
        alive = answer.json().get("status") == "alive"
    except (ValueError, AttributeError):
        alive = False
    if not alive:
        yield Finding(
            "reachability",
            "fail",
            f"something else answers at {url} (HTTP {answer.status_code})",
            "is this the aggregator's address, and does a proxy pass requests on?",
        )
        return
    yield Finding("reachability", "ok", f"{url} answers in {1000 * took:.0f} ms")
    yield from _clock(answer.headers.get("date"), asked + took / 2)
    yield from _readiness(at, verified)


def _readiness(at: Address, verified: ssl.SSLContext | bool) -> Findings:
    try:
        ready = httpx.get(f"{at.url}/readyz", timeout=10, verify=verified, trust_env=not at.loopback)
        wrong_there = "" if ready.status_code == 200 else ready.text[:200].strip()
    except httpx.HTTPError as error:
        wrong_there = why(error)
    if wrong_there:
        say = f"the aggregator is not ready: {wrong_there}"
        yield Finding("readiness", "warn", say, "whoever runs it should look at it")


def _clock(date: str | None, here: float) -> Findings:
    try:
        there = parsedate_to_datetime(date or "").timestamp() + 0.5  # it is cut off at full seconds
    except (TypeError, ValueError):
        yield Finding(
            "clock", "warn", "the aggregator did not say what time it is there", "compare it by hand"
        )
        return
    off = here - there
    if abs(off) < _PRECISION:
        yield Finding("clock", "ok", "the same as the aggregator's, as far as can be told")
        return
    say = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the aggregator's"
    if abs(off) > CLOCK_FAIL:
        yield Finding(
            "clock", "fail", say, "set this machine's clock (a time service): signed requests are refused"
        )
    elif abs(off) > CLOCK_WARN:
        yield Finding("clock", "warn", say, "run a time service on both machines")
    else:
        yield Finding("clock", "ok", say)


def _certificate(at: Address, me: Participant) -> Findings:
    host, port = at.host, at.port or 443
    context = certificates.trust(me.authority) if me.authority else ssl.create_default_context()
    try:
        with (
            socket.create_connection((host, port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=host) as line,
        ):
            told = line.getpeercert() or {}
    except ssl.SSLError as error:
        wrong = certificates.explain(error, at.url, own_authority=me.authority is not None)
        yield Finding(
            "certificate",
            "fail",
            wrong.reason if wrong else str(error),
            (wrong.hint if wrong else None) or _TELL,
        )
        return
    except OSError:
        return  # reachability says so
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(told["notAfter"])), UTC)
    days = (ends - datetime.now(UTC)).days
    trusted = "the federation's own authority" if me.authority else "an authority of this machine"
    say = f"valid for {host}, by {trusted}, until {ends:%Y-%m-%d} ({days} days)"
    if days < CERTIFICATE_WARN:
        yield Finding("certificate", "warn", say, "whoever runs the aggregator: `choral tls renew`")
    else:
        yield Finding("certificate", "ok", say)


def asked(me: Participant, url: str) -> Findings:
    """With a signature: whether the aggregator knows this key, and has this task and a good log."""
    found: list[Finding] = []
    try:
        asking(me, lambda transport: _ask(transport, me, found), url=url)
    except ChoralError as error:
        what = "enrolment there" if error.slug == "identity" else "log and model"
        found.append(Finding(what, "fail", error.reason, error.hint or _TELL))
    except (ValueError, LookupError, TypeError, AttributeError):
        say = f"what answers at {url} does not answer as an aggregator of this version does"
        hint = "is this the aggregator's address? run the same version"
        found.append(Finding("log and model", "fail", say, hint))
    yield from found  # what was good before, too


async def _ask(transport: Transport, me: Participant, found: list[Finding]) -> None:
    task = await transport.get("/v1/task")
    found.append(Finding("enrolment there", "ok", f"the aggregator knows the key of {me.name}"))
    if task != me.task.encode():
        theirs = Task.decode(task).digest.hex()[:12]
        found.append(
            Finding(
                "task there",
                "fail",
                f"the aggregator serves task {theirs}, this folder has {me.task.digest.hex()[:12]}",
                "wrong address, another federation's folder, or one side's task.toml was edited",
            )
        )
        return
    theirs = str(json.loads(await transport.get("/v1/status")).get("choral", "an older one"))
    if theirs == __version__:
        found.append(Finding("version there", "ok", f"Choral {theirs}"))
    else:
        say = f"Choral {theirs}, here {__version__}"
        found.append(Finding("version there", "warn", say, "run the same version everywhere"))
    found.append(Finding("task there", "ok", f"the same task, {me.task.digest.hex()[:12]}"))
    records = await whole_log(transport, me)
    if not records:
        raise AggregatorUnavailable("the aggregator's log is empty", hint="has it been started?")
    head = records[-1]
    model_file.decode(await model_of(transport, head), me.task.arrays)
    found.append(
        Finding(
            "log and model",
            "ok",
            f"{len(records)} records verified, and the model of version {head.version}",
        )
    )
