"""The federation file: who belongs, with which pinned keys, above which floors (§2).

Every participant has its own copy and trusts no other. A member takes no security parameter from the
aggregator: what stands here, in the member's own folder, is what counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from choral.disk import write_whole
from choral.errors import IdentityError, ParameterError
from choral.federation import key_file
from choral.federation.address import address
from choral.federation.files import NAME, checked, read_toml
from choral.federation.integration import sealer
from choral.federation.task import EDITED, Hex32, Task, Tolerated
from choral.primitives.identity import Identity, sound
from choral.protocol.parameters import Parameters
from choral.protocol.sealing import AES_GCM, Sealing

BUNDLE_BYTES = 224
"""A Syft public bundle (§3.4)."""

MemberName = Annotated[str, Field(pattern=NAME)]
Bundle = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{2 * BUNDLE_BYTES}}}$")]
AGGREGATOR = "aggregator"
SYFT_KEYS = "syft.json"
CA = "ca.pem"
INITIAL = "initial.safetensors"  # the first model, in the aggregator's folder


def _reachable(url: str) -> str:
    try:
        return address(url).url
    except ParameterError as error:
        raise ValueError(error.reason) from error


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Aggregator(_Strict):
    url: Annotated[str, AfterValidator(_reachable)]
    key: Hex32


class Federation(_Strict):
    """Who belongs to a federation, and what this participant insists on.

    Attributes:
        minimum: n_min, the smallest cohort this participant takes part in.
        tolerated: c, how many members may collude with the aggregator; "quarter" is floor((n - 1) / 4).
        sends_per_model: after how many masked vectors from one model a member waits before each more (§5.1).
        spare_sends: how many masked vectors it sends over the whole task beyond one a round (§5.1).
        bundles: the Syft public bundle of every participant, when the task is sealed by `syft` (§3.4).
    """

    name: str
    aggregator: Aggregator
    members: dict[MemberName, Hex32]
    minimum: Annotated[int, Field(ge=2)] = 3
    tolerated: Tolerated = "quarter"
    sends_per_model: Annotated[int, Field(ge=1)] = 4
    spare_sends: Annotated[int, Field(ge=0)] = 16
    bundles: dict[MemberName, Bundle] = {}

    @model_validator(mode="after")
    def _members_are_distinct(self) -> Federation:
        keys = [self.aggregator.key, *self.members.values()]
        if len(set(keys)) != len(keys):
            raise ValueError("two participants have one and the same key")
        if odd := [key for key in keys if not sound(bytes.fromhex(key))]:
            raise ValueError(f"{odd[0]} is nobody's key: anybody could sign under it")
        if AGGREGATOR in self.members:
            raise ValueError(f"a member cannot be called {AGGREGATOR!r}")
        if len(self.members) < self.minimum:
            raise ValueError(f"{len(self.members)} members, fewer than the smallest cohort of {self.minimum}")
        if self.minimum < 3 and len(self.members) > 2:
            raise ValueError("a smallest cohort of two is for federations of two only; raise it to 3 or more")
        if self.bundles and self.bundles.keys() != {AGGREGATOR, *self.members}:
            odd = sorted(self.bundles.keys() ^ {AGGREGATOR, *self.members})
            raise ValueError(f"Syft bundles for some participants only, or for strangers: {', '.join(odd)}")
        if len({bundle[:64] for bundle in self.bundles.values()}) != len(self.bundles):
            raise ValueError("two participants have one and the same Syft key")
        return self

    @cached_property
    def pinned(self) -> dict[str, bytes]:
        """Identity keys of the members by name."""
        return {name: bytes.fromhex(key) for name, key in self.members.items()}

    @cached_property
    def aggregator_key(self) -> bytes:
        return bytes.fromhex(self.aggregator.key)

    @property
    def warning(self) -> str | None:
        """What a person should know about the floors before taking part."""
        if self.minimum > 2:
            return None
        return (
            "this federation allows cohorts of two: from the sum and its own update, each of the two"
            " members can work out the other's. Nothing is private between them."
        )

    @classmethod
    def load(cls, path: Path) -> Federation:
        """Read `federation.toml`.

        Raises:
            ParameterError: missing, not TOML, or not a possible federation.
        """
        return checked(cls, read_toml(path), str(path), hint=EDITED)

    def save(self, path: Path) -> None:
        values = self.model_dump(mode="json", exclude=set() if self.bundles else {"bundles"})
        write_whole(path, tomli_w.dumps(values).encode())


@dataclass(frozen=True)
class Participant:
    """One participant's folder, read and checked: its name, its key, its copies of federation and task."""

    folder: Path
    name: str
    identity: Identity
    federation: Federation
    task: Task

    @classmethod
    def load(cls, folder: Path) -> Participant:
        """Read a folder that `choral init` made.

        Raises:
            ParameterError, IdentityError: a file that is missing or wrong, or a key that is not enrolled.
        """
        federation = Federation.load(folder / "federation.toml")
        task = Task.load(folder / "task.toml")
        identity = key_file.load(folder / "identity.pem")
        if identity.public == federation.aggregator_key:
            name = AGGREGATOR
        else:
            names = [name for name, key in federation.pinned.items() if key == identity.public]
            if not names:
                raise IdentityError(
                    f"{folder / 'identity.pem'}: the key {identity.public.hex()[:16]}… is not enrolled in"
                    f" {folder / 'federation.toml'}",
                    hint="key and federation file belong to different federations, or this key was replaced",
                )
            name = names[0]
        participant = cls(folder, name, identity, federation, task)
        _ = participant.parameters
        if task.sealing == "syft" and not federation.bundles:
            raise ParameterError(
                f"{folder / 'federation.toml'} pins no Syft bundles, and the task is sealed by syft",
                hint="task and federation file belong to different federations, or bundles were taken out",
            )
        return participant

    @property
    def authority(self) -> Path | None:
        """The one authority that the aggregator's certificate must come from; None: those of the machine."""
        file = self.folder / CA
        return file if file.exists() else None

    @cached_property
    def parameters(self) -> Parameters:
        """This participant's own frame for every round.

        Raises:
            ParameterError: floors that do not go with the task.
        """
        return self.task.parameters(self.federation.minimum, self.federation.tolerated)

    @cached_property
    def sealing(self) -> Sealing:
        """How this task's rounds are sealed, with this participant's own keys (§3.4).

        Raises:
            IdentityError: the keys for it in the folder are missing or not the pinned ones.
            ParameterError: the integration that seals so, or a package of it, is not installed.
        """
        found = sealer(self.task.sealing)
        return found.sealing_of(self) if found else AES_GCM

    def expect(self, *, aggregator: bool) -> Participant:
        """This participant, if it is of the wanted kind.

        Raises:
            ParameterError: a member's folder where the aggregator's is wanted, or the other way round.
        """
        if (self.name == AGGREGATOR) != aggregator:
            wanted = "the aggregator's" if aggregator else "a member's"
            raise ParameterError(
                f"{self.folder} is the folder of {self.name}, expected {wanted}",
                hint="`choral serve` runs the aggregator's folder, `choral join` a member's",
            )
        return self
