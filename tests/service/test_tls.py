"""TLS: whom members trust, what is renewed while everything runs, and what a mistake says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from choral.binding import certificates
from choral.binding.access import Access
from choral.client.transport import Transport
from choral.errors import AggregatorUnavailable, ParameterError, TlsError
from choral.founding.authority import Pem, new_authority, new_server
from choral.primitives.identity import Identity
from choral.service.http.certificate import ServerCertificate

NAMES = ["localhost", "127.0.0.1"]


@pytest.fixture(scope="module")
def authority() -> Pem:
    return new_authority("house")


def lay(folder: Path, authority: Pem, **more) -> ServerCertificate:
    """A fresh server certificate in a folder, as the aggregator has it."""
    new_server(authority, more.pop("names", NAMES), **more).save(folder, "server.pem", "server.key")
    (folder / "ca.pem").write_bytes(authority.certificate)
    return ServerCertificate(folder / "server.pem", folder / "server.key")


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Something that answers every request with `yes`; its port."""
    writers = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(ConnectionError):
            while asked := await reader.read(1 << 16):
                good = b" HTTP/1.1\r\n" in asked
                writer.write(
                    b"HTTP/1.1 %s\r\nContent-Length: 3\r\n\r\nyes" % (b"200 OK" if good else b"400 No")
                )
                await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def member(
    url: str, authority: Path | None, *, patience: float = 0.5, **more
) -> AsyncIterator[Transport]:
    identity = Identity.generate(os.urandom)
    access = Access("m1", secrets.token_hex(8))
    async with Transport(
        url, identity, access, patience=patience, jitter=lambda: 0.0, authority=authority, **more
    ) as transport:
        yield transport


async def connect(port: int, ca: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
    """A connection, and the serial number of the certificate that it was shown."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=certificates.trust(ca), server_hostname="localhost"
    )
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return reader, writer, x509.load_der_x509_certificate(shown).serial_number


async def asks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    return (await asyncio.wait_for(reader.readuntil(b"yes"), 5))[-3:]


async def test_a_member_trusts_the_authority_in_its_folder_and_speaks_tls_1_3(tmp_path, authority) -> None:
    served = lay(tmp_path, authority)
    async with (
        serving(served.context) as port,
        member(f"https://127.0.0.1:{port}", tmp_path / "ca.pem") as transport,
    ):
        assert await transport.get("/v1/task") == b"yes"
        _, writer, _ = await connect(port, tmp_path / "ca.pem")
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"


async def test_another_authority_is_refused_at_first_contact_with_a_hint(tmp_path, authority) -> None:
    served = lay(tmp_path, authority)
    (tmp_path / "ca.pem").write_bytes(new_authority("another").certificate)
    async with (
        serving(served.context) as port,
        member(f"https://localhost:{port}", tmp_path / "ca.pem") as transport,
    ):
        with pytest.raises(TlsError, match=r"not issued by the authority in this folder's ca.pem") as caught:
            await transport.get("/v1/task")
    assert "another federation's folder" in caught.value.hint


@pytest.mark.parametrize(
    ("laid", "says", "hint"),
    [
        ({"now": datetime.now(UTC) - timedelta(days=400)}, "has expired", "choral tls renew"),
        ({"names": ["aggregator.example"]}, "is for another name", "--tls-name"),
        ({"now": datetime.now(UTC) + timedelta(days=2)}, "is not valid yet", "clock"),
    ],
    ids=["expired", "another name", "not valid yet"],
)
async def test_a_certificate_that_does_not_hold_says_which_way(tmp_path, authority, laid, says, hint) -> None:
    served = lay(tmp_path, authority, **laid)
    async with (
        serving(served.context) as port,
        member(f"https://localhost:{port}", tmp_path / "ca.pem") as transport,
    ):
        with pytest.raises(TlsError, match=says) as caught:
            await transport.get("/v1/task")
    assert hint in caught.value.hint


async def test_http_to_a_port_with_tls_says_so_and_the_other_way_round(tmp_path, authority) -> None:
    served = lay(tmp_path, authority)
    async with serving(served.context) as port, member(f"http://127.0.0.1:{port}", None) as transport:
        with pytest.raises(TlsError, match="speaks TLS, and the address says http") as caught:
            await transport.get("/v1/task")
        assert "https://" in caught.value.hint
    async with (
        serving(None) as port,
        member(f"https://127.0.0.1:{port}", tmp_path / "ca.pem") as transport,
    ):
        with pytest.raises(TlsError, match="does not speak TLS"):
            await transport.get("/v1/task")


async def test_a_port_where_nobody_is_is_no_question_of_tls(tmp_path, authority) -> None:
    lay(tmp_path, authority)
    async with member("https://127.0.0.1:9", tmp_path / "ca.pem", patience=0.1) as transport:
        with pytest.raises(AggregatorUnavailable):
            await transport.get("/v1/task")


async def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_live_on(
    tmp_path, authority
) -> None:
    served = lay(tmp_path, authority)
    async with serving(served.context) as port:
        old = await connect(port, tmp_path / "ca.pem")
        assert not served.reload()  # nothing changed
        first = served.expires
        new_server(authority, NAMES, days=900).save(tmp_path, "server.pem", "server.key")
        assert served.reload()
        new = await connect(port, tmp_path / "ca.pem")
        assert new[2] != old[2]
        assert served.expires > first
        assert await asks(*old[:2]) == await asks(*new[:2]) == b"yes"


async def test_a_change_to_another_kind_of_authority_reaches_new_connections(tmp_path, authority) -> None:
    served = lay(tmp_path, authority)
    other = new_authority("other")
    (tmp_path / "other.pem").write_bytes(other.certificate)
    async with serving(served.context) as port:
        new_server(other, NAMES).save(tmp_path, "server.pem", "server.key")
        assert served.reload()
        await connect(port, tmp_path / "other.pem")
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(port, tmp_path / "ca.pem")


async def test_files_that_do_not_go_together_leave_the_old_certificate_in_use(tmp_path, authority) -> None:
    served = lay(tmp_path, authority)
    before = served.expires
    fresh = new_server(authority, NAMES, days=900)
    async with serving(served.context) as port:
        (tmp_path / "server.pem").write_bytes(fresh.certificate)  # the key comes a moment later
        assert not served.reload()
        _, _, serial = await connect(port, tmp_path / "ca.pem")
        assert served.expires == before
        (tmp_path / "server.key").write_bytes(fresh.key)
        assert served.reload()
        assert (await connect(port, tmp_path / "ca.pem"))[2] != serial
        (tmp_path / "server.pem").unlink()
        assert not served.reload()


async def test_an_expiry_while_members_are_there_is_told_and_healed_by_renewing(tmp_path, authority) -> None:
    served = lay(tmp_path, authority)
    told = []
    async with serving(served.context) as port, member(
        f"https://localhost:{port}", tmp_path / "ca.pem", patience=30,
        tell=lambda event: told.append((event.name, event.reason)),
    ) as transport:  # fmt: skip
        assert await transport.get("/v1/task") == b"yes"
        new_server(authority, NAMES, now=datetime.now(UTC) - timedelta(days=400)).save(
            tmp_path, "server.pem", "server.key"
        )
        assert served.reload()
        assert served.seconds_left < 0
        # its connections break, as after a restart of the aggregator
        for connection in transport._http._transport._pool.connections:
            await connection.aclose()
        asking = asyncio.create_task(transport.get("/v1/task"))
        await asyncio.sleep(0.2)
        assert not asking.done()
        lay(tmp_path, authority)
        assert served.reload()
        assert await asyncio.wait_for(asking, 10) == b"yes"
    assert told[0][0] == "unreachable"
    assert "has expired" in told[0][1]


async def test_the_watch_takes_up_a_change_by_itself_and_warns_of_a_near_expiry(
    tmp_path, authority, capsys
) -> None:
    served = lay(tmp_path, authority, days=20)
    watching = asyncio.create_task(served.watch(every=0.01))
    await asyncio.sleep(0.05)
    new_server(authority, NAMES, days=300).save(tmp_path, "server.pem", "server.key")
    async with asyncio.timeout(5):
        while served.seconds_left < 100 * 86400:
            await asyncio.sleep(0.01)
    watching.cancel()
    said = "".join(capsys.readouterr())
    assert "the certificate expires soon" in said
    assert "a new certificate is in use" in said
    assert served.status()["seconds_left"] > 290 * 86400


def test_a_key_that_is_not_the_certificates_is_refused_at_the_start(tmp_path, authority) -> None:
    lay(tmp_path, authority)
    (tmp_path / "server.key").write_bytes(new_server(authority, NAMES).key)
    with pytest.raises(ParameterError, match=r"cannot be used for TLS"):
        ServerCertificate(tmp_path / "server.pem", tmp_path / "server.key")
    with pytest.raises(ParameterError, match=r"cannot be used for TLS"):
        ServerCertificate(tmp_path / "nothing.pem", tmp_path / "server.key")
