"""One process of a federation over a Drive in a folder:  syft_processes.py DRIVE VERB FOLDER …

VERB is serve, join, or die: a member that is killed when it has dealt its shares and owes its masked vector.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from pathlib import Path

import drive
from choral.binding.access import Access
from choral.binding.sizes import largest_answer
from choral.client import participate
from choral.client.events import calling
from choral.client.journal import Journal
from choral.client.member import Member
from choral.client.over_http import OverHttp
from choral.client.transport import Transport
from choral.data import save_shard
from choral.federation.enrolment import Participant
from choral.integrations.syft import aggregator as service
from choral.integrations.syft import member as client
from choral.learning import Softmax
from choral.service.settings import Settings
from house import CLASSES, FEATURES, QUICK, examples


async def serve(root: Path, folder: Path) -> None:
    me = Participant.load(folder)
    settings = Settings(host="127.0.0.1", port=0, state=folder / "state", **(QUICK | {"join_seconds": 30.0}))
    connection = drive.connection(root, "aggregator@example.org")
    await service.serve(me, settings, connection=connection, started=lambda where: print(where, flush=True))


async def join(root: Path, folder: Path) -> None:
    me = Participant.load(folder)
    carrier = client.carrier(folder, connection=drive.connection(root, f"{me.name}@example.org"))

    def report(event: str, **details: object) -> None:
        print(me.name, event, details.get("got", details.get("version", "")), flush=True)

    with contextlib.closing(Journal(folder / "state")) as journal:
        async with Transport(
            me.federation.aggregator.url, me.identity, Access(me.name, secrets.token_hex(8)), patience=30.0,
            jitter=lambda: 0.5, largest=largest_answer(me.task), carrier=carrier,
        ) as transport:  # fmt: skip
            member = Member(
                me, Softmax(FEATURES, CLASSES, epochs=1, batch=8), examples(int(me.name[1:])),
                OverHttp(transport, me.sealing), journal, random=os.urandom, tell=calling(report),
            )  # fmt: skip
            record = await member.run()
    print(me.name, "done", record.version, record.digest.hex(), flush=True)


def die(root: Path, folder: Path) -> None:
    """As a person would take part, until it is killed."""

    def report(event: str, **details: object) -> None:
        print(event, details.get("got", ""), flush=True)
        if details.get("got") == "inbox":
            os.kill(os.getpid(), signal.SIGKILL)

    found = examples(4)
    shard = save_shard(folder / "shard.npy", found.X, found.y)
    carrier = client.carrier(folder, connection=drive.connection(root, f"{folder.name}@example.org"))
    participate(folder, shard, report=report, carrier=carrier)


async def main(root: Path, verb: str, folders: list[Path]) -> None:
    if verb == "serve":
        await serve(root, folders[0])
    else:
        await asyncio.gather(*(join(root, folder) for folder in folders))


if __name__ == "__main__":
    if sys.argv[2] == "die":
        die(Path(sys.argv[1]), Path(sys.argv[3]))
    else:
        asyncio.run(main(Path(sys.argv[1]), sys.argv[2], [Path(name) for name in sys.argv[3:]]))
