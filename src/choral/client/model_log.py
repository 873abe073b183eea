"""The model log as one member follows it: forwards only, every link checked, remembered on disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from choral.client.events import Tell, Version
from choral.client.exchange import Aggregator
from choral.client.journal import Journal
from choral.errors import RecordError
from choral.federation.enrolment import Participant
from choral.federation.progress import Progress
from choral.federation.records import Record, Records, follow
from choral.learning import model_file
from choral.learning.trainer import Parameters
from choral.protocol.transcript import signed_by

_PAUSE = 1.0
_REMEMBERED = 256  # versions whose digest is compared with what a round was told


class _Stretch(NamedTuple):
    """A verified part of the log: how long the whole is, its last record, those that were not known."""

    newest: int
    head: Record | None
    fresh: list[Record]


class ModelLog:
    """What this member has verified of the log.

    Attributes:
        head: the newest record, also over restarts.
        resting: what the open request says of this member: "spent", "pause" or nothing (§5.1).

    Raises:
        RecordError: the journal is that of a member of another federation.
    """

    def __init__(self, me: Participant, aggregator: Aggregator, journal: Journal, tell: Tell) -> None:
        self._me = me
        self._aggregator = aggregator
        self.resting: str | None = None
        self._journal = journal
        self._tell = tell
        self._moved = asyncio.Condition()
        self._seen: dict[int, bytes] = {}
        self._promised: dict[int, bytes] = {}
        self._remembered = journal.head()
        if self._remembered is not None:
            _expect_mine(me, journal, self._remembered)
        # patience goes by the whole log: it is read again, and must lead through what was seen before
        self.head: Record | None = None if me.task.patience else self._remembered
        self._progress = Progress() if self.head is None else Progress(self.head.version)
        self._journaled = -1 if self._remembered is None else self._remembered.version

    @property
    def over(self) -> bool:
        """Whether training is over, by what this member has verified."""
        return self._progress.over(self._me.task)

    async def catch_up(self) -> Record:
        """Everything that is there, so that nobody trains from a model that is old already.

        Raises:
            RecordError: the log was forked or rolled back, or does not verify.
        """
        while True:
            # the newest record that is known comes along: it must still be the one that was seen
            after = -1 if self.head is None else self.head.version - 1
            newest = await self._follow(max(after, -1))
            if self.head is not None and self.head.version >= newest:
                return self.head

    async def watch(self) -> Record:
        """Follow the log for ever. The open request also tells the aggregator that this member is there.

        Raises: as `catch_up`.
        """
        while True:
            before = self.head
            after = -1 if before is None else before.version
            await self._follow(after, self.resting)
            if self.head is before:
                await asyncio.sleep(_PAUSE)

    async def newer_than(self, version: int) -> Record:
        """The newest record, once there is one above `version`."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.head is not None and self.head.version > version)
        assert self.head is not None  # noqa: S101
        return self.head

    async def newer_within(self, version: int, seconds: float) -> None:
        """Wait for a version above `version`, but not for long."""
        # in this very task: `asyncio.wait_for` of Python 3.11 can leave the lock taken
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.newer_than(version)

    async def changed_within(self, base: Record, seconds: float) -> None:
        """Wait for another model than that of `base`, or for the end of the training, but not for longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(
                    lambda: self.over or self.head is None or self.head.parameters != base.parameters
                )

    async def over_within(self, seconds: float) -> None:
        """Wait for the end of the training, but not for longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self.over)

    @contextlib.contextmanager
    def rest(self, how: str) -> Iterator[None]:
        """While the member sends nothing, the aggregator is told so with the next request."""
        self.resting = how
        try:
            yield
        finally:
            self.resting = None

    def promise(self, record: Record) -> None:
        """A round was told that it led to `record`: the log must say so too.

        Raises:
            RecordError: it says otherwise.
        """
        self._promised[record.version] = record.digest
        self._compare(record.version)

    async def model(self, record: Record) -> Parameters:
        """The model of a version; bytes that are not it are fetched once more.

        Raises:
            RecordError: other bytes than its record names, or not the one encoding of a model (§7.3).
            UpdateError: not a model of this task.
        """
        wanted, version = record.parameters, record.version
        try:
            data = model_file.named(await self._aggregator.model(wanted), wanted, version)
        except RecordError:
            data = model_file.named(await self._aggregator.model(wanted), wanted, version)
        try:
            return model_file.decode(data, self._me.task.arrays, canonical=True)
        except model_file.NotCanonical as error:
            # under two encodings one model would have two digests, and be sent from twice as often (§5.1)
            raise RecordError(f"the model of version {version}: {error.reason}") from error

    async def _follow(self, after: int, resting: str | None = None) -> int:
        """Ask for what comes after a version, verify it, move. An answer that fails is fetched once more."""
        found = await self._aggregator.records(after, resting)
        try:
            stretch = self._verified(found)
        except RecordError:
            stretch = self._verified(await self._aggregator.records(after, resting))
        if stretch.head is not None and stretch.fresh:
            await self._move(stretch.head, stretch.fresh)
        return stretch.newest

    def _verified(self, stretch: Records) -> _Stretch:
        head = self.head
        seen = -1 if head is None else head.version
        if stretch.newest < max(seen, self._journaled):
            raise RecordError(
                f"the aggregator's log ends at version {stretch.newest}, this member has seen"
                f" {max(seen, self._journaled)}",
                hint="the log was rolled back; if a backup was restored, members have to be told",
            )
        fresh: list[Record] = []
        for record in stretch.records:
            if head is not None and record.version == seen and not fresh:
                self._unchanged(head, record)
                continue
            head = follow(
                head, record, aggregator=self._me.federation.aggregator_key, task=self._me.task.digest
            )
            if self._remembered is not None and record.version == self._remembered.version:
                self._unchanged(self._remembered, record)
            fresh.append(record)
        if stretch.newest > seen and not fresh:
            raise RecordError(
                f"the aggregator names version {stretch.newest} as its newest, but no record after {seen}"
            )
        return _Stretch(stretch.newest, head, fresh)

    @staticmethod
    def _unchanged(seen: Record, now: Record) -> None:
        if now.digest != seen.digest:
            raise RecordError(
                f"version {seen.version} is another one than this member has seen",
                hint="the aggregator's log was rolled back or forked; do not go on with it",
            )

    async def _move(self, head: Record, fresh: list[Record]) -> None:
        for record in fresh:
            self._seen[record.version] = record.digest
            self._compare(record.version)
        for version in [version for version in self._seen if version <= head.version - _REMEMBERED]:
            del self._seen[version]
        if head.version > self._journaled:
            await asyncio.to_thread(self._journal.saw, head)
        for record in fresh:
            self._progress = self._progress.after(record)
        self.head = head
        for record in fresh:
            if record.version <= self._journaled:
                continue
            metrics = record.metrics
            self._tell(
                Version(
                    version=record.version,
                    survivors=record.survivors,
                    mine=self._me.name in record.survivors,
                    accuracy_before=metrics.accuracy if metrics else None,
                )
            )
        async with self._moved:
            self._moved.notify_all()

    def _compare(self, version: int) -> None:
        if version in self._seen and version in self._promised:
            promised = self._promised.pop(version)
            if promised != self._seen[version]:
                raise RecordError(
                    f"the log's version {version} is not the one that this member's round was told",
                    hint="the aggregator signed two versions of one number: it forked the log",
                )


def _expect_mine(me: Participant, journal: Journal, last: Record) -> None:
    """Raises `RecordError`, with whose it is, if the record that the journal ends with is of another log."""
    key = me.federation.aggregator_key
    if last.task == me.task.digest and signed_by(last, key):
        return
    theirs = f"task {last.task.hex()[:12]}, version {last.version}"
    ours = f"{me.federation.name!r}, task {me.task.digest.hex()[:12]}, aggregator {key.hex()[:12]}"
    raise RecordError(
        f"the state in {journal.folder} is that of a member of another federation ({theirs}), and {me.folder}"
        f" is {me.name} of {ours}",
        hint="a folder or a volume was kept: move away what is in it, or go back to that federation",
    )
