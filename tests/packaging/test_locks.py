"""A lock names everything that it installs, and what pyproject.toml asks for is in it."""

from __future__ import annotations

import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from locks import BASE, BESIDE, DEV, PROJECT, ROOT, UNHASHED, asked, pins, versions

ALL = [BASE, DEV, *BESIDE]


@pytest.mark.parametrize("lock", ALL)
def test_every_package_is_pinned_once_and_by_hash(lock: str) -> None:
    here = [pin.name for pin in pins(lock) if pin.here]
    assert len(here) == len(set(here))
    for pin in pins(lock):
        assert pin.version, pin.requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in pin.hashes), pin.requirement
        assert bool(pin.hashes) == (lock != UNHASHED), pin.requirement
        assert pin.requirement.url is None, pin.requirement


@pytest.mark.parametrize("lock", ALL)
def test_what_pyproject_asks_for_is_locked_at_a_version_that_it_allows(lock: str) -> None:
    for requirement in asked(lock):
        name = canonicalize_name(requirement.name)
        locked = [pin for pin in pins(lock) if pin.name == name]
        assert locked, f"{name} is not in {lock}: run locks/make"
        for pin in locked:
            assert pin.version in requirement.specifier, f"{pin.requirement} in {lock}, asked: {requirement}"


def test_every_extra_and_every_group_has_a_lock_and_every_lock_is_for_one() -> None:
    extras, groups = PROJECT["project"]["optional-dependencies"], PROJECT["dependency-groups"]
    names = {*extras, *groups} - {"dev", "syft"}
    assert {lock for lock in BESIDE if lock != UNHASHED} == {f"locks/{name}.lock" for name in names}
    # the extra `syft` is for the demo and Compose too: it is in the first lock
    (syft,) = map(Requirement, extras["syft"])
    assert versions(BASE)[syft.name] in syft.specifier


def test_all_locks_agree_so_that_any_of_them_can_be_installed_beside_the_others() -> None:
    found: dict[str, dict[str, str]] = {}
    for lock in ALL:
        for name, version in versions(lock).items():
            found.setdefault(name, {})[lock] = version
    assert not {name: where for name, where in found.items() if len(set(where.values())) > 1}


@pytest.mark.parametrize("lock", ALL)
def test_a_lock_is_closed(lock: str) -> None:
    """What a locked package requires here is locked as well, at a version that it takes: nothing to resolve.

    An extra's lock is closed together with requirements.lock, beside which it is installed.
    """
    beside = (
        [lock] if lock in (BASE, DEV) else [lock, BASE, *([] if lock != UNHASHED else ["locks/torch.lock"])]
    )
    locked = versions(*beside)
    waiting = [(name, "") for name in versions(lock)]
    seen = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{lock} is not installed")
        assert package.version == locked[name], f"not installed from {lock}: {name}"
        for line in package.requires or ():
            required = Requirement(line)
            if required.marker is not None and not required.marker.evaluate({"extra": extra}):
                continue
            key = canonicalize_name(required.name)
            assert key in locked, f"{lock} lacks {key}, which {name} requires"
            assert required.specifier.contains(locked[key], prereleases=True), f"{name} requires {required}"
            waiting += [(key, each) for each in ("", *required.extras)]


def test_what_the_cpu_build_of_pytorch_requires_stands_in_its_list() -> None:
    lines = [
        Requirement(line)
        for line in (ROOT / "locks/torch.in").read_text().splitlines()
        if line and line[0] != "#" and "torch" not in line
    ]
    try:
        package = importlib.metadata.distribution("torch")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("torch is not installed")
    required = [Requirement(line) for line in package.requires or () if "extra ==" not in line]
    assert {canonicalize_name(each.name) for each in lines} == {canonicalize_name(e.name) for e in required}


FILES = [ROOT / name for name in ("run", ".ci/run", "Dockerfile", "CONTRIBUTING.md", "README.md", *BESIDE)]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_nobody_installs_a_lock_in_a_way_that_resolves(file) -> None:
    """Hashes are checked in any case: pip does so as soon as one line of a lock has some, and all have."""
    text = file.read_text().replace("\\\n", " ")
    for command in re.findall(r"\bpip\b[^\n;&|]* install [^\n;&|]*", text):
        if not re.search(r"\s(-r|--requirement)\b", command):
            continue
        assert "--no-deps" in command, command
