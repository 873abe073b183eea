"""An aggregator's address is read in one way, and what goes wrong on the way there is told in words."""

from __future__ import annotations

import socket

import httpx
import pytest

from choral.errors import ParameterError
from choral.federation.address import address, why
from choral.service.settings import load as settings_of


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "loopback"),
    [
        ("http://127.0.0.1:8750", "http", "127.0.0.1", 8750, True),
        ("http://localhost/", "http", "localhost", None, True),
        ("https://Agg.Example:8750/below/", "https", "agg.example", 8750, False),
        ("http://[::1]:8750", "http", "::1", 8750, True),
        ("https://[2001:db8::7]", "https", "2001:db8::7", None, False),
        ("http://aggregator_1:80", "http", "aggregator_1", 80, False),
        ("http://bücher.example", "http", "bücher.example", None, False),
    ],
)
def test_an_address_has_its_parts(url, scheme, host, port, loopback):
    found = address(url)
    assert (found.scheme, found.host, found.port, found.loopback) == (scheme, host, port, loopback)
    assert not found.url.endswith("/")


@pytest.mark.parametrize(
    "url",
    [
        "", "a", "127.0.0.1:8750", "ftp://a", "http://", "http://:80", "http://[::1", "http://::1", "http://[1.2.3.4]",
        "http://[x]", "http://a:0", "http://a:99999", "http://a:b", "http://a b", "http://u:p@a", "http://a?x",
        "http://a#x", "http://a..b", "http://-a", "http://999.1.1.1", "http://" + "a" * 64, "http://a\n", "http://\udce9",
        "http://[fe80::1%eth0]", "javascript:1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(url):
    with pytest.raises(ParameterError, match="address of the aggregator") as error:
        address(url)
    assert "http://[2001:db8::7]:8750" in error.value.hint


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://127.0.0.1:1", "127.0.0.1"),
        ("http://agg.example:1", "0.0.0.0"),
        ("http://[::1]:1", "::1"),
        ("http://[2001:db8::7]:1", "::"),
    ],
)
def test_the_aggregator_listens_where_its_address_points(tmp_path, url, host):
    assert settings_of(tmp_path, url).host == host


def test_a_refused_connection_is_told_without_a_class_or_a_number():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(httpx.ConnectError) as error:
        httpx.get(url, trust_env=False)
    assert why(error.value) == "connection refused"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
        (httpx.ReadTimeout(""), "no answer in time"),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."),
         "server disconnected without sending a response"),
        (httpx.ReadError(""), "the connection broke"),
        (OSError("[Errno 5] something"), "something"),
    ],
)  # fmt: skip
def test_every_failure_has_words(error, said):
    assert why(error) == said
