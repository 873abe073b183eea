"""`choral doctor` on proxy variables: which one counts, whether it can be one, and what passes by it."""

from __future__ import annotations

import pytest

from choral.federation.address import address
from choral.inspection.proxies import on_the_way

FAR, HERE = "http://agg.example:8750", "http://127.0.0.1:8750"


@pytest.mark.parametrize(
    ("url", "environment", "how", "said"),
    [
        (FAR, {}, None, ""),
        (FAR, {"https_proxy": "http://p:1"}, None, ""),
        (FAR, {"http_proxy": "http://p:3128"}, "ok", "go through http://p:3128 (http_proxy)"),
        (FAR, {"ALL_PROXY": "socks5://p:1"}, "ok", "socks5://p:1 (ALL_PROXY)"),
        (FAR, {"http_proxy": "p:3128"}, "ok", "go through p:3128"),
        (FAR, {"http_proxy": "http://user:secret@p:1"}, "ok", "http://…@p:1"),
        (FAR, {"HTTP_PROXY": "http://"}, "fail", "HTTP_PROXY is 'http://': it names no host"),
        (FAR, {"HTTP_PROXY": "ftp://p"}, "fail", "found ftp"),
        (FAR, {"HTTP_PROXY": "http://p:x"}, "fail", "port"),
        (
            FAR,
            {"http_proxy": "http://p:1", "no_proxy": "x, .example"},
            "ok",
            "NO_PROXY lets agg.example pass",
        ),
        (FAR, {"http_proxy": "http://", "NO_PROXY": "*"}, "ok", "NO_PROXY lets"),
        (HERE, {"http_proxy": "http://p:1"}, "warn", "http_proxy sends http://127.0.0.1:8750 to http://p:1"),
        (HERE, {"http_proxy": "http://p:1", "no_proxy": "localhost,127.0.0.1"}, None, ""),
        ("http://[::1]:8750", {"http_proxy": "http://p:1", "no_proxy": "[::1]"}, None, ""),
    ],
)
def test_the_way_through_a_proxy_is_told(url, environment, how, said):
    found = list(on_the_way(address(url), environment))
    assert [finding.how for finding in found] == ([how] if how else [])
    for finding in found:
        assert said in finding.found
        assert finding.how == "ok" or finding.do
        assert "secret" not in finding.found
