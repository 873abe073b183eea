"""The authority and its certificates, as files, and an operator's own."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from choral.binding import certificates
from choral.errors import ParameterError
from choral.founding import authority as made
from choral.founding.authority import new_authority, new_server, own_tls, private_tls

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def authority():
    return new_authority("house")


def lay(folder, pem, ca=None):
    (folder / "c.pem").write_bytes(pem.certificate)
    (folder / "k.pem").write_bytes(pem.key)
    if ca is not None:
        (folder / "ca.pem").write_bytes(ca)
    return folder / "c.pem", folder / "k.pem", folder / "ca.pem" if ca is not None else None


def test_the_authority_lasts_ten_years_a_server_one_and_never_longer_than_its_authority(authority) -> None:
    assert 3649 * DAY < certificates.expires(authority.certificate) - datetime.now(UTC) < 3651 * DAY
    server = new_server(authority, ["a.example"])
    assert 364 * DAY < certificates.expires(server.certificate) - datetime.now(UTC) < 366 * DAY
    short = new_authority("short", days=10)
    assert certificates.expires(new_server(short, ["a"]).certificate) == certificates.expires(
        short.certificate
    )


def test_the_authority_can_issue_for_servers_and_for_no_further_authority(authority) -> None:
    parsed = x509.load_pem_x509_certificate(authority.certificate)
    constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.path_length == 0
    server = x509.load_pem_x509_certificate(new_server(authority, ["a"]).certificate)
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_names_and_addresses_stand_in_the_certificate_as_what_they_are(authority) -> None:
    names = ["aggregator.example", "localhost", "127.0.0.1", "::1"]
    assert certificates.names_of(new_server(authority, names).certificate) == names
    for wrong in ([], ["\udcff"]):
        with pytest.raises(ParameterError):
            new_server(authority, wrong)


def test_only_the_authority_given_is_trusted(tmp_path, authority) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    context = certificates.trust(tmp_path / "ca.pem")
    assert [entry["subject"] for entry in context.get_ca_certs()] == [
        ((("commonName", "Choral authority of house"),),)
    ]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ParameterError, match="not a file of PEM certificates"):
        certificates.trust(tmp_path / "ca.pem")


def test_keys_are_readable_by_their_owner_only_and_replaced_whole(tmp_path, authority) -> None:
    for _ in range(2):
        authority.save(tmp_path, "ca.pem", "ca.key")
        assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"ca.pem", "ca.key"}


def test_an_operators_own_certificate_is_taken_with_its_authority_or_without(tmp_path, authority) -> None:
    files = lay(tmp_path, new_server(authority, ["a.example", "*.b.example"]), authority.certificate)
    assert own_tls(*files, "a.example").authority == authority.certificate
    assert own_tls(*files, "x.b.example").authority_key is None
    assert own_tls(*files[:2], None, "a.example").authority is None


def test_capitals_in_names_make_no_difference(tmp_path, authority) -> None:
    server = new_server(authority, ["Aggregator.Example", "aggregator.example", "10.0.0.8"])
    assert certificates.names_of(server.certificate) == ["aggregator.example", "10.0.0.8"]
    shouting = made.Pem(named(authority, x509.DNSName("AGGREGATOR.Example")), server.key)
    assert certificates.names_of(shouting.certificate) == ["aggregator.example"]
    own_tls(*lay(tmp_path, server, authority.certificate), "aggregator.EXAMPLE")


def test_a_wildcard_is_for_one_label_and_for_no_address(tmp_path, authority) -> None:
    files = lay(tmp_path, new_server(authority, ["*.b.example"]), authority.certificate)
    own_tls(*files, "x.b.example")
    for host in ("y.x.b.example", "b.example", "10.0.0.8"):
        with pytest.raises(ParameterError, match="not for"):
            own_tls(*files, host)


def named(authority, *names: x509.GeneralName) -> bytes:
    """A certificate with these alternative names as they are, or with none."""
    issuer, key = made._load(authority)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.example")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - DAY)
        .not_valid_after(datetime.now(UTC) + DAY)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_a_certificate_without_alternative_names_is_refused_for_that_reason(authority) -> None:
    bare = named(authority)
    assert certificates.names_of(bare) == []
    with pytest.raises(ParameterError, match="no alternative names") as error:
        made.check_own(bare, authority.key, None, "a.example")
    assert "a.example" in error.value.hint


@pytest.mark.parametrize(
    "name", ["agg, 10.0.0.8", " 10.0.0.8", "a b", "", "*", "http://a", "a:8750", "999.1.1.1"]
)
def test_what_is_no_name_gets_into_no_certificate(authority, name) -> None:
    with pytest.raises(ParameterError, match="expected a host name or an IP address"):
        new_server(authority, [name])


@pytest.mark.parametrize("case", ["host", "key", "authority", "expired", "missing", "no pem"])
def test_an_operators_files_that_do_not_go_together_are_refused(tmp_path, authority, case) -> None:
    server, ca, host = new_server(authority, ["a.example"]), authority.certificate, "a.example"
    if case == "expired":
        server = new_server(authority, ["a.example"], now=datetime.now(UTC) - 400 * DAY)
    if case == "host":
        host = "b.example"
    if case == "authority":
        ca = new_authority("other").certificate
    certificate, key, ca_file = lay(tmp_path, server, ca)
    if case == "key":
        key.write_bytes(new_server(authority, ["a.example"]).key)
    if case == "missing":
        key.unlink()
    if case == "no pem":
        certificate.write_text("nothing")
    says = {
        "host": "not for b.example", "key": "do not belong together", "authority": "not issued by",
        "expired": "expired on", "missing": "cannot be read", "no pem": "not a PEM certificate",
    }  # fmt: skip
    with pytest.raises(ParameterError, match=says[case]):
        own_tls(certificate, key, ca_file, host)


def test_a_private_one_comes_with_everything_that_init_lays_down() -> None:
    tls = private_tls("house", ["a.example"])
    assert tls.authority_key
    made.check_own(tls.server.certificate, tls.server.key, tls.authority, "a.example")
