"""One version, wherever it is written."""

from __future__ import annotations

import re

import choral
from locks import PROJECT, ROOT


def test_the_version_is_the_same_everywhere() -> None:
    found = {
        "pyproject.toml": PROJECT["project"]["version"],
        "Dockerfile": re.findall(r"^ARG VERSION=(.+)$", (ROOT / "Dockerfile").read_text(), re.M)[0],
        **dict(
            re.findall(
                r'^(version|appVersion): "?([^"\n]+)"?$',
                (ROOT / "deploy/helm/choral/Chart.yaml").read_text(),
                re.M,
            )
        ),
        "CHANGELOG.md": re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[0],
    }
    assert set(found.values()) == {choral.__version__}
