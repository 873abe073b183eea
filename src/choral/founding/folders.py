"""`choral init`: one folder for each participant, with its own key and no other's (§2)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from choral.binding import certificates
from choral.errors import ParameterError
from choral.federation import key_file
from choral.federation.enrolment import AGGREGATOR, CA, INITIAL, SYFT_KEYS, Federation
from choral.federation.files import checked
from choral.federation.integration import sealer
from choral.federation.task import Task
from choral.founding.authority import Pem, Tls
from choral.primitives.entropy import RandomBytes
from choral.primitives.identity import Identity

AUTHORITY = "ca"
LARGEST_COPIES = 32 << 20
"""Bytes that the copies of one file may take together; beyond that the folders share it."""
_NOTE = """\
ca.key is the private key of this federation's own certificate authority. Whoever has it can pass for the
aggregator on the network (and would still get no single member's update). It is needed for nothing but
`choral tls renew`: move this folder to a machine or a medium that is offline, and bring it back for that.
"""


def provision(
    root: Path,
    *,
    url: str,
    members: Sequence[str],
    task: Task,
    initial: bytes,
    minimum: int,
    tolerated: int | str,
    random: RandomBytes,
    tls: Tls | None = None,
    each: Callable[[list[str]], Iterable[str]] = list,
) -> Federation:
    """Make `root` with a folder for the aggregator and one for each member.

    Each folder holds `federation.toml`, `task.toml` and that participant's `identity.pem`, under the
    sealing `syft` also its `syft.json`; the
    aggregator's also the initial model. With `tls`, the aggregator's also holds the server certificate
    and its key, every folder the authority to trust (`ca.pem`), and `root/ca` the authority's own key.
    Nothing is left behind when it fails. `each` hands on the names, to show how far it is.

    Raises:
        ParameterError: the folder exists, the federation cannot be, or what seals it is not installed.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ParameterError(f"{root} exists already", hint="choose another folder: keys are never replaced")
    if len(set(members)) != len(members):
        raise ParameterError("two members have one name")
    if tls is not None and AUTHORITY in members:
        raise ParameterError(f"a member cannot be called {AUTHORITY!r}", hint="the authority's folder is")
    # floors that no round could meet are refused before anything is written
    task.parameters(minimum, tolerated)
    identities = {name: Identity.generate(random) for name in (AGGREGATOR, *members)}
    sealed = sealer(task.sealing)
    keys = {name: sealed.new_keys(random) for name in identities} if sealed else {}
    federation = checked(
        Federation,
        {
            "name": task.name,
            "aggregator": {"url": url, "key": identities[AGGREGATOR].public.hex()},
            "members": {name: identities[name].public.hex() for name in members},
            "minimum": minimum,
            "tolerated": tolerated,
            "bundles": {name: public.hex() for name, (public, _) in keys.items()},
        },
        "the federation",
    )
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        federation.save(building / "federation.toml")
        task.save(building / "task.toml")
        alike = [_Alike(building / file, len(identities)) for file in ("federation.toml", "task.toml")]
        for name in each(list(identities)):
            identity = identities[name]
            folder = building / name
            folder.mkdir(mode=0o700)
            key_file.save(identity, folder / "identity.pem")
            if name in keys:
                key_file.write(folder / SYFT_KEYS, keys[name][1])
            for one in alike:
                one.put(folder)
        for one in alike:
            one.source.unlink()
        (building / AGGREGATOR / INITIAL).write_bytes(initial)
        if tls is not None:
            _place(building, tls, identities)
        building.chmod(0o755)
        if root.exists():
            root.rmdir()
        building.rename(root)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return federation


class _Alike:
    """A file that is the same in every folder: a copy in each; in large federations one under many names.

    A thousand copies of a list of a thousand members would be a million lines. The names of one file are
    read-only, so that nobody changes them all by changing one; whoever copies a folder gets a file.
    """

    def __init__(self, source: Path, folders: int) -> None:
        self.source = source
        self._content = source.read_bytes()
        self._linked = folders * len(self._content) > LARGEST_COPIES
        if self._linked:
            source.chmod(0o444)

    def put(self, folder: Path) -> None:
        target = folder / self.source.name
        if self._linked:
            try:
                os.link(self.source, target)
            except OSError:  # a file system without links, or with a limit to them
                pass
            else:
                return
        target.write_bytes(self._content)


def _place(root: Path, tls: Tls, names: Iterable[str]) -> None:
    tls.server.save(root / AGGREGATOR, certificates.CERTIFICATE, certificates.KEY)
    if tls.authority is None:  # one that every machine trusts anyway
        return
    for name in names:
        (root / name / CA).write_bytes(tls.authority)
    if tls.authority_key is not None:
        folder = root / AUTHORITY
        folder.mkdir(mode=0o700)
        Pem(tls.authority, tls.authority_key).save(folder, CA, certificates.CA_KEY)
        (folder / "README").write_text(_NOTE)
