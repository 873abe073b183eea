"""An aggregator's rounds without sockets, on a clock that a test moves. Members are the real machines."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from choral.federation.enrolment import Participant
from choral.federation.records import Record
from choral.primitives.identity import Identity
from choral.protocol import phases, wire
from choral.protocol.member import MemberRound
from choral.protocol.messages import Endorsements, Inbox, MaskedVector, Roster, Survivors
from choral.service.rounds.requests import Rounds
from choral.service.state.sqlite import Store
from choral.service.training import Training
from choral.vectors.fixed_point import encode
from choral.vectors.totals import Totals
from house import House, make_folder


class Direct:
    """`rounds` of n members, and what these would send. A context manager; the first `here` are connected."""

    def __init__(
        self,
        root: Path,
        n: int = 4,
        *,
        settings: dict[str, Any] | None = None,
        here: int | None = None,
        **task: Any,
    ) -> None:
        self.now = 1000.0
        home = House(make_folder(root / "fed", n, **task), **({"wait_seconds": 0.05} | (settings or {})))
        self.root = home.root
        self.aggregator = home.aggregator
        self.store = Store(home.settings.state)
        self.training = Training(home.aggregator, self.store)
        self.rounds = Rounds(
            home.aggregator,
            home.settings,
            self.training,
            self.store,
            clock=lambda: self.now,
            wall=lambda: 1e9,
        )
        self.conductor = self.rounds.conductor
        self.here = contextlib.ExitStack()
        self._there = n if here is None else here
        self.names = [f"m{i}" for i in range(1, n + 1)]
        self._me = {name: Participant.load(self.root / name) for name in self.names}

    async def __aenter__(self) -> Direct:
        for name in self.names[: self._there]:
            self.come(name)
        return self

    def come(self, name: str) -> contextlib.ExitStack:
        """A member opens a connection; it is closed with what is returned, or at the end."""
        stack = self.here.enter_context(contextlib.ExitStack())
        stack.enter_context(self.rounds.presence.connection(name, self.session(name)))
        return stack

    async def later(self, seconds: float) -> None:
        """Time passes, in steps as small as the driver's, which looks after each."""
        while seconds > 0:
            step = min(0.25, seconds)
            self.now += step
            seconds -= step
            for live in self.conductor.lives():
                live.wake.set()
            await settled()

    async def __aexit__(self, *_: object) -> None:
        await self.rounds.drain(0)
        self.here.close()
        self.store.close()

    @staticmethod
    def session(name: str) -> str:
        return name.rjust(16, "0")

    def identity(self, name: str) -> Identity:
        return self._me[name].identity

    def machine(self, name: str, totals: Totals | None = None, value: float = 0.0) -> MemberRound:
        me = self._me[name]
        known = phases.Member(
            name, me.identity, me.federation.pinned, me.parameters, self.training.head.context, me.sealing
        )
        delta = np.full(me.task.dimension, value or 0.01 * int(name[1:]), np.float32)
        vector = encode(delta, 10, me.task.plan).vector
        return MemberRound(known, vector, (totals or Totals(10, 2, 1, 1.0)).encode(), os.urandom)

    async def join(self, machine: MemberRound, **more: Any) -> Roster:
        message = machine.advertise
        data = await asking(lambda: self.rounds.join(message, self.session(message.member), 1, **more))
        return wire.decode(Roster, data)

    async def share(self, machine: MemberRound, roster: Roster) -> Inbox:
        message: Any = machine.receive(roster)
        return wire.decode(Inbox, await asking(lambda: self.rounds.share(message, 1)))

    async def mask(self, machine: MemberRound, inbox: Inbox) -> Survivors:
        message = machine.receive(inbox)
        assert isinstance(message, MaskedVector)
        live = await self.rounds.mask(message, 1)
        return wire.decode(Survivors, await asking(lambda: self.rounds.survivors(live)))

    async def endorse(self, machine: MemberRound, survivors: Survivors) -> Endorsements:
        message: Any = machine.receive(survivors)
        return wire.decode(Endorsements, await asking(lambda: self.rounds.endorse(message, 1)))

    async def reveal(self, machine: MemberRound, endorsements: Endorsements) -> Record:
        return await self.reveal_again(machine.receive(endorsements))

    async def reveal_again(self, message: Any) -> Record:
        return wire.decode(Record, await asking(lambda: self.rounds.reveal(message, 1)))

    async def play(self, machine: MemberRound, **more: Any) -> Record:
        """A whole round."""
        inbox = await self.share(machine, await self.join(machine, **more))
        return await self.reveal(machine, await self.endorse(machine, await self.mask(machine, inbox)))


async def asking(ask: Callable[[], Any]) -> bytes:
    """As a member asks: again, for as long as it is told to wait."""
    from choral.service.rounds.live import StillWaiting  # noqa: PLC0415

    while True:
        with contextlib.suppress(StillWaiting):
            found: bytes = await ask()
            return found


async def settled() -> None:
    """Everything that can happen without time passing has happened."""
    for _ in range(20):
        await asyncio.sleep(0)
