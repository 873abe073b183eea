"""`choral join --via pysyft`: a member's requests as files in PySyft's synchronised folders.

The member's loop, its journal and its machine are those of HTTP; only what carries a request differs. This is
a transport under httpx, so retries, long polls and refusals stay where they are (`client.transport`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from choral.binding.sizes import largest_answer
from choral.errors import ChoralError
from choral.federation.enrolment import AGGREGATOR, Participant
from choral.integrations.syft.folders import (
    ANSWER,
    OVERHEAD,
    REQUEST,
    Account,
    Answer,
    File,
    Folders,
    Request,
    connect,
    envelopes_of,
    name_of,
)
from choral.primitives.entropy import RandomBytes
from choral.protocol import wire

_PATIENCE = 240.0  # less than the clocks' skew (§7.4): an older request would be refused for its age


def carrier(folder: str | os.PathLike[str], *, connection: Any = None) -> FolderCarrier:
    """What carries the requests of the member in `folder`; hand it to `participate`.

    Args:
        connection: PySyft's connection, if another than the account's own.

    Raises:
        ParameterError: the account, PySyft or the member's Syft keys cannot be used.
    """
    me = Participant.load(Path(folder)).expect(aggregator=False)
    account = Account.load(me, {AGGREGATOR})
    return FolderCarrier(me, account, Folders(connection or connect(me, account)))


class FolderCarrier(httpx.AsyncBaseTransport):
    """Requests to the aggregator as files. Its file is removed when a request is over, however it ended."""

    def __init__(
        self,
        me: Participant,
        account: Account,
        folders: Folders,
        *,
        largest: int | None = None,
        random: RandomBytes = os.urandom,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._account = account
        self._folders = folders
        self._envelopes = envelopes_of(me)
        self._largest = (largest or largest_answer(me.task)) + OVERHEAD
        self._random = random
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._places: tuple[str, str] | None = None
        self._seen: dict[str, File] = {}
        self._looked = float("-inf")
        self._lock = asyncio.Lock()
        self._own: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        letter = Request(
            self._random(32),
            request.method,
            request.url.raw_path.decode("ascii"),
            request.headers.get("Authorization", ""),
            await request.aread(),
        )
        sealed = await asyncio.to_thread(lambda: self._envelopes.seal(AGGREGATOR, wire.encode(letter)))
        try:
            inbox, _ = await self._open()
            file = await self._put(inbox, name_of(letter.nonce, REQUEST), sealed)
            try:
                async with asyncio.timeout(_PATIENCE):
                    answer = await self._answer(letter)
            finally:
                await asyncio.shield(self._remove(file))
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"no answer in the folder within {_PATIENCE:.0f} s") from error
        except ChoralError as error:
            raise httpx.ConnectError(f"an answer that cannot be used: {error.reason}") from error
        except Exception as error:  # PySyft, Drive and the network below raise what they like
            raise httpx.ConnectError(f"{type(error).__name__}: {error!s:.200}") from error
        return httpx.Response(answer.status, stream=httpx.ByteStream(answer.body))

    async def aclose(self) -> None:
        for file in list(self._own):
            with contextlib.suppress(Exception):
                await self._remove(file)
        self._folders.close()

    async def _open(self) -> tuple[str, str]:
        """Inbox and outbox; what an earlier process left in the inbox is removed."""
        async with self._lock:
            if self._places is None:
                inbox, outbox = await self._folders.share_with(self._account.people[AGGREGATOR])
                for file in (await self._folders.list(inbox)).values():
                    await self._folders.delete(file.id)
                self._places = inbox, outbox
        return self._places

    async def _put(self, inbox: str, name: str, sealed: bytes) -> str:
        """A new file that will be removed, whatever happens meanwhile."""
        putting = asyncio.ensure_future(self._folders.put(inbox, name, sealed))
        try:
            file = await asyncio.shield(putting)
        except asyncio.CancelledError:
            await self._folders.delete(await putting)
            raise
        self._own.add(file)
        return file

    async def _answer(self, letter: Request) -> Answer:
        """The answer to this very request.

        Raises:
            PeerError, WireError: an answer that is not the aggregator's, or not to this request.
        """
        name = name_of(letter.nonce, ANSWER)
        while True:
            file = (await self._look()).get(name)
            if file is not None:
                break
            await asyncio.sleep(self._account.poll_seconds)
        if file.size > self._largest:
            raise ChoralError(f"a file of {file.size} bytes")
        sealed = await self._folders.get(file.id)
        content = await asyncio.to_thread(self._envelopes.open, AGGREGATOR, sealed)
        answer = wire.decode(Answer, content)
        if answer.nonce != letter.nonce or not 100 <= answer.status <= 599:
            raise ChoralError("it answers another request")
        return answer

    async def _look(self) -> dict[str, File]:
        """The outbox, looked at once for all requests that wait."""
        async with self._lock:
            assert self._places is not None  # noqa: S101
            if self._clock() - self._looked >= self._account.poll_seconds * 0.9:
                self._seen = await self._folders.list(self._places[1])
                self._looked = self._clock()
        return self._seen

    async def _remove(self, file: str) -> None:
        await self._folders.delete(file)
        self._own.discard(file)
