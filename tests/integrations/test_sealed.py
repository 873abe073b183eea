"""Rounds under `sealing = "syft"` over real HTTP, with a proxy in between that reads, changes and replays."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from choral.binding.sizes import largest_message
from choral.errors import ChoralError, PeerError
from choral.integrations.syft.envelope import OVERHEAD_BYTES
from choral.integrations.syft.sealing import HEADER_BYTES
from choral.learning import model_file
from choral.protocol import wire
from choral.protocol.messages import Dealt, Inbox, Shares
from house import House, house, until

pytest.importorskip("syft_crypto_python", reason='needs pip install "choral[syft]"')


@pytest.fixture
async def home(tmp_path):
    async with house(tmp_path, 4, rounds=2, sealing="syft") as found:
        yield found


async def to_masks(home: House, players):
    """Everybody has an inbox; the machines and what each would send now."""
    played = await asyncio.gather(*(player.play(home.head, until="mask") for player in players))
    return [machine for machine, _ in played], [inbox for _, inbox in played]


async def test_a_whole_training_with_a_member_that_drops(home):
    async def dropped():
        async with home.player(4) as leaver:
            await leaver.play(home.head, until="mask")

    leaver = asyncio.create_task(dropped())
    await until(lambda: home.rounds.presence.connected("m4"))
    records = await asyncio.gather(*(home.member(i) for i in (1, 2, 3)))
    await leaver
    assert {record.version for record in records} == {2}
    rows = home.store.rounds()
    assert {name for row in rows for name in row.facts.dropped} == {"m4"}


async def test_the_proxy_sees_no_masked_word(home, monkeypatch):
    bodies = []
    sealing = type(home.aggregator.sealing)
    original = sealing.decode_vector
    monkeypatch.setattr(
        sealing,
        "decode_vector",
        lambda self, body, d, a: bodies.append(bytes(body)) or original(self, body, d, a),
    )
    async with home.players(1, 2, 3, 4) as players:
        machines, inboxes = await to_masks(home, players)
        vectors = [machine.receive(inbox) for machine, inbox in zip(machines, inboxes, strict=True)]
        await asyncio.gather(
            *(
                player.mask(machine, inbox)
                for player, machine, inbox in zip(players, machines, inboxes, strict=True)
            )
        )
    assert len(bodies) == 4
    for vector in vectors:
        assert not any(vector.main.tobytes() in body for body in bodies)


async def test_a_proxy_that_swaps_or_damages_vectors_gets_a_refusal_that_names_the_sender(home):
    async with home.players(1, 2, 3, 4) as players:
        machines, inboxes = await to_masks(home, players)
        one, two = players[:2]
        mine = one.me.sealing.encode_vector(machines[0].receive(inboxes[0]))
        yours = two.me.sealing.encode_vector(machines[1].receive(inboxes[1]))
        for envelope, reason in (
            (yours[1], "was made by 'm2'"),
            (mine[1][:-1] + bytes([mine[1][-1] ^ 1]), "does not decrypt"),
        ):
            with pytest.raises(PeerError, match=reason) as told:
                await one.send("PUT", f"{one.at(machines[0])}/masked", [mine[0], envelope])
            assert told.value.culprits == ("m1",)
        # nobody else has paid for it
        await asyncio.gather(
            *(
                player.mask(machine, inbox)
                for player, machine, inbox in zip(players, machines, inboxes, strict=True)
            )
        )


async def test_a_vector_that_is_not_sealed_is_refused(home):
    async with home.players(1, 2, 3, 4) as players:
        machines, inboxes = await to_masks(home, players)
        plain = wire.encode_vector(machines[0].receive(inboxes[0]))
        with pytest.raises(ChoralError, match="expected"):
            await players[0].send("PUT", f"{players[0].at(machines[0])}/masked", plain)


async def test_the_model_moves_by_the_mean_of_the_updates(home):
    async with home.players(1, 2, 3, 4) as players:
        await asyncio.gather(*(player.play(home.head) for player in players))
    model = model_file.decode(home.training.blob(home.head.parameters))
    assert home.head.version == 1
    np.testing.assert_allclose(model["bias"], 0.025, atol=1e-6)


def test_messages_of_the_largest_cohort_fit_what_is_taken():
    round_id, seal = bytes(32), bytes(OVERHEAD_BYTES + HEADER_BYTES + 80)
    shares = Shares("m" * 64, round_id, bytes(32), (seal,) * 256, bytes(64))
    dealt = (Dealt("m" * 64, bytes(32), bytes(64)),) * 256
    assert len(wire.encode(shares)) < largest_message(256)
    assert len(wire.encode(Inbox(round_id, dealt, (seal,) * 256))) < largest_message(256)
    assert largest_message(3) == 1 << 20
