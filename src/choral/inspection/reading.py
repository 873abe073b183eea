"""The log and the models, wherever a participant can read them from."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx

from choral.binding import certificates
from choral.binding.access import Access
from choral.binding.sizes import largest_answer
from choral.client.transport import Transport
from choral.client.whole_log import model_of, whole_log
from choral.errors import ParameterError, WireError
from choral.federation.address import address, why
from choral.federation.enrolment import AGGREGATOR, Participant
from choral.federation.progress import progress_of
from choral.federation.records import Record, verify
from choral.learning import model_file
from choral.service.state.sqlite import Store

T = TypeVar("T")
_OF_ANOTHER_KIND = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class Log:
    """The verified records and the models: the aggregator's from its file, a member's from the service.

    Raises:
        RecordError: a record that breaks a rule.
    """

    def __init__(self, me: Participant, state: Path | None = None) -> None:
        self._me = me
        self._store = Store(state or me.folder / "state", read_only=True) if me.name == AGGREGATOR else None
        self.records: list[Record]
        if self._store:
            self.records = self._store.records(-1)
            verify(self.records, aggregator=me.federation.aggregator_key, task=me.task.digest)
        else:
            self.records = asking(me, lambda transport: whole_log(transport, me))

    def record(self, version: int | str | None) -> Record:
        """The record of a version by number, of "best", or of "newest" and by default the newest.

        Raises:
            ParameterError: there is no such version.
        """
        if not self.records:
            raise ParameterError(
                "there is no model yet", hint="the aggregator makes version 0 when it starts"
            )
        newest = self.records[-1].version
        if version == "best":
            best = progress_of(self.records).best
            if best is None:
                raise ParameterError(
                    "no version is the best: no two of them were measured by the same members",
                    hint="`choral log` shows who measured which; --version takes a number, too",
                )
            version = best.version
        if isinstance(version, str):
            version = None
        if version is not None and not 0 <= version <= newest:
            raise ParameterError(
                f"there is no version {version}, the newest is {newest}", hint="`choral log` lists them"
            )
        return self.records[newest if version is None else version]

    def model(self, record: Record) -> bytes:
        """A version's safetensors, compared with the digest in its record.

        Raises:
            RecordError: they differ.
        """
        if self._store:
            data = self._store.blob(record.parameters) or b""
            return model_file.named(data, record.parameters, record.version)
        return asking(self._me, lambda transport: model_of(transport, record))


def fetch(me: Participant, *paths: str, patience: float = 5.0) -> list[bytes]:
    """GETs, signed by this participant's key."""

    async def get(transport: Transport) -> list[bytes]:
        return [await transport.get(path) for path in paths]

    return asking(me, get, patience=patience)


def asking(
    me: Participant,
    ask: Callable[[Transport], Awaitable[T]],
    *,
    url: str | None = None,
    patience: float = 5.0,
) -> T:
    """What `ask` gives, over a transport with this participant's key; `url` if another than its own."""

    async def run() -> T:
        access = Access(me.name, secrets.token_hex(8))
        async with Transport(
            url or me.federation.aggregator.url, me.identity, access, patience=patience, jitter=random.random,
            largest=largest_answer(me.task), authority=me.authority,
        ) as transport:  # fmt: skip
            return await ask(transport)

    return asyncio.run(run())


@contextlib.contextmanager
def understood(where: str, *also: type[Exception]) -> Iterator[None]:
    """What is read here out of an answer has to be in it, and of the right kind.

    Args:
        also: what else an answer of another kind leads to.

    Raises:
        WireError: it is not.
    """
    wrong: tuple[type[Exception], ...] = (*_OF_ANOTHER_KIND, *also)
    try:
        yield
    except wrong as error:
        raise WireError(
            f"{where} answers, and not as an aggregator of this version does",
            hint="is this the aggregator's address, in the same version? `choral doctor` says more",
        ) from error


def status_of(where: str, authority: Path | None = None) -> dict[str, Any]:
    """An aggregator's status, by its address (from the same machine) or by a participant's folder."""
    return told_by(where, "/v1/status", authority)


def snapshot_of(where: str, authority: Path | None = None) -> dict[str, Any]:
    """What the dashboard shows, asked for as `status_of` does."""
    return told_by(where, "/v1/snapshot", authority)


def told_by(where: str, path: str, authority: Path | None = None) -> dict[str, Any]:
    """An answer in JSON, by an aggregator's address (from the same machine) or by a participant's folder.

    Raises:
        ChoralError: nobody answers there, or somebody else.
    """
    found: dict[str, Any]
    if "://" not in where:
        (data,) = fetch(Participant.load(Path(where)), path)
        found = json.loads(data)
        return found
    at = address(where)
    try:
        verify = certificates.trust(authority) if authority else True
        answer = httpx.get(f"{at.url}{path}", timeout=5, verify=verify, trust_env=not at.loopback)
        answer.raise_for_status()
        found = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        if wrong := certificates.explain(error, where, own_authority=authority is not None):
            raise wrong from error
        raise ParameterError(
            f"{where} did not say how it is ({why(error)})",
            hint="from another machine, give a participant's folder instead: its key signs the request",
        ) from error
    return found
