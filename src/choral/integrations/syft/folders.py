"""Requests and answers as files in PySyft's synchronised folders, sealed by the pinned Syft bundles.

PySyft 0.10 synchronises over accounts of Google Drive. A member owns two folders there that it shares with
the aggregator: it writes into the inbox, the aggregator into the outbox. A request of §7 is one file in
the first, its answer one file in the second; what is in them is what HTTP would carry. Whoever is asked
deletes nothing: each side removes the files that it made itself.

Nothing that the carrier says is believed: not whose file it is, not what it is called, not when it was
written. An envelope opens only under the pinned bundle of the one it must come from, the request in it is
signed as every request is (§7.4), and an answer names the request that it answers.

PySyft's public interface has no way to hand over bytes; docs/decisions/0012-pysyft.md says which internals
this module uses, and why it takes exactly one version.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from choral.errors import ParameterError
from choral.federation import key_file
from choral.federation.enrolment import Participant
from choral.federation.files import checked, read_toml
from choral.integrations.syft.envelope import OVERHEAD_BYTES, Envelopes
from choral.integrations.syft.sealing import Syft
from choral.protocol.messages import Bytes32, Length

VERSION = "0.10.0"
FILE = "pysyft.toml"
REQUEST, ANSWER = ".request", ".answer"
OVERHEAD = OVERHEAD_BYTES + 2048
"""A file is at most this much longer than the body in it."""

_PREFIX = "choral-"  # PySyft's own synchronisation passes over names that it does not know

T = TypeVar("T")
Email = Annotated[str, Field(pattern=r"^[^@\s'\"#]+@[^@\s'\"#]+$")]
Large = Annotated[bytes, Length(0, 1 << 40)]


@dataclass(frozen=True)
class Request:
    """A request of §7, as a file."""

    nonce: Bytes32
    method: Annotated[str, Length(1, 8)]
    path: Annotated[str, Length(1, 512)]
    authorization: Annotated[str, Length(0, 512)]
    body: Large


@dataclass(frozen=True)
class Answer:
    """What a request was answered, as a file; `nonce` is the request's."""

    nonce: Bytes32
    status: int
    body: Large


class Account(BaseModel):
    """`pysyft.toml` in a participant's folder.

    Attributes:
        email: of this participant's account.
        token: PySyft's token file for it; relative to the folder.
        people: the others' accounts by name: at a member the aggregator's, at the aggregator all members'.
        poll_seconds: how often a folder is looked at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    email: Email
    token: Path = Path("token.json")
    people: dict[str, Email]
    poll_seconds: Annotated[float, Field(gt=0, le=600)] = 2.0

    @classmethod
    def load(cls, me: Participant, names: set[str]) -> Account:
        """The account of `me`, which needs those of `names`.

        Raises:
            ParameterError: no such file, not possible, or somebody's account is missing.
        """
        file = me.folder / FILE
        if me.task.sealing != "syft":
            raise ParameterError(
                "rounds travel through PySyft under the Syft keys, and this federation has none",
                hint="make it with `choral init … --sealing syft`",
            )
        if not file.exists():
            raise ParameterError(
                f"{file}: not found", hint="docs/pysyft.md says what stands in it and where it comes from"
            )
        account = checked(cls, read_toml(file), str(file), hint="docs/pysyft.md says what stands in it")
        if missing := names - account.people.keys():
            raise ParameterError(
                f"{file}: no account for {', '.join(sorted(missing))}",
                hint='[people] needs a line NAME = "someone@example.org" for each',
            )
        return account


def connect(me: Participant, account: Account) -> Any:
    """PySyft's connection to the account.

    Raises:
        ParameterError: PySyft is not installed, or in another version, or there is no token.
        IdentityError: every user of this machine can read the token.
    """
    transport = pysyft()
    token = me.folder / account.token
    if not token.exists():
        raise ParameterError(
            f"{token}: not found", hint="syft.credentials_to_token makes it; docs/pysyft.md goes step by step"
        )
    key_file.read(token)  # refuses one that every user of the machine can read
    return transport.GDriveConnection.from_token_path(account.email, token)


@functools.cache
def pysyft() -> Any:
    """PySyft's module with its one transport.

    Raises:
        ParameterError: not installed, or in another version.
    """
    try:
        found = importlib.metadata.version("syft")
    except importlib.metadata.PackageNotFoundError as error:
        raise ParameterError("PySyft is not installed here", hint='pip install "choral[pysyft]"') from error
    if found != VERSION:
        raise ParameterError(
            f"found PySyft {found}, expected {VERSION}: rounds use parts of it that are not public",
            hint=f'pip install "choral[pysyft]" installs syft=={VERSION}',
        )
    from syft.sync.connections.drive import gdrive_transport  # noqa: PLC0415  (an extra, and seconds)

    return gdrive_transport


class Folders:
    """The folders of one account. Calls go one after the other in a thread of their own.

    Raises: whatever PySyft and what it is built on raise, OSError among them.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._thread = ThreadPoolExecutor(1, "pysyft")

    async def _call(self, work: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *given)

    async def share_with(self, email: str) -> tuple[str, str]:
        """A member's inbox and outbox for this aggregator; made and shared if they are not there."""

        def work() -> tuple[str, str]:
            self._connection.add_peer(email)
            return (
                self._connection._get_peer_datasite_inbox_id(email),
                self._connection._get_peer_datasite_outbox_id(email),
            )

        return await self._call(work)

    async def shared_by(self, email: str) -> tuple[str, str] | None:
        """A member's inbox and outbox, as its aggregator finds them; None while there are none."""

        def work() -> tuple[str, str] | None:
            inbox = self._connection._get_own_datasite_inbox_id(email)
            outbox = self._connection._get_own_datasite_outbox_id(email)
            return (inbox, outbox) if inbox and outbox else None

        return await self._call(work)

    async def list(self, folder: str) -> dict[str, File]:
        """Choral's files in a folder by name."""

        def work() -> dict[str, File]:
            found = self._connection.get_file_metadatas_from_folder(folder)
            return {
                entry["name"]: File(entry["id"], int(entry.get("size", 0)))
                for entry in found
                if entry["name"].startswith(_PREFIX)
            }

        return await self._call(work)

    async def put(self, folder: str, name: str, data: bytes) -> str:
        """A new file; its id."""

        def work() -> str:
            content, _ = self._connection.create_file_payload(data)
            files = self._connection.drive_service.files()
            body = {"name": name, "parents": [folder]}
            made = pysyft().execute_with_retries(files.create(body=body, media_body=content, fields="id"))
            return str(made["id"])

        return await self._call(work)

    async def get(self, file: str) -> bytes:
        return bytes(await self._call(self._connection.download_file, file))

    async def delete(self, file: str) -> None:
        """Remove a file that this account made. One that is gone already, or another's, is no error."""
        await self._call(self._connection.delete_file_by_id, file)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class File:
    """A file in a folder: what to ask for it with, and how many bytes it is said to have."""

    id: str
    size: int


def name_of(nonce: bytes, kind: str) -> str:
    return f"{_PREFIX}{nonce.hex()}{kind}"


def envelopes_of(me: Participant) -> Envelopes:
    """The participant's Syft keys and pinned bundles, for whole files."""
    sealing = me.sealing
    assert isinstance(sealing, Syft)  # noqa: S101  (Account.load has looked at the task)
    return sealing.envelopes
