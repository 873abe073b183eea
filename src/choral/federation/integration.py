"""What an integration brings, looked up by name.

`choral.integrations` stands on a higher floor, and each of its folders is optional: no module below `cli`
imports one. A task says `sealing = "syft"` or a person `--via pysyft`; only then is it looked for, and where
it was removed everything else works.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast

from choral.errors import ParameterError
from choral.primitives.entropy import RandomBytes
from choral.protocol.sealing import Sealing

if TYPE_CHECKING:
    from choral.federation.enrolment import Participant


class Sealer(Protocol):
    """`choral.integrations.NAME.sealing`: what a task's `sealing` names, unless that is `aes-gcm`.

    Raises:
        ParameterError: a package that it needs is not installed, or in another version.
    """

    def new_keys(self, random: RandomBytes) -> tuple[bytes, bytes]:
        """Long-term keys of one participant: the bundle that all pin, and what its own folder keeps."""

    def sealing_of(self, me: Participant) -> Sealing:
        """How this participant seals.

        Raises:
            IdentityError: the keys in its folder are missing, or not the pinned ones.
        """

    def warning(self, cohort: int) -> str | None:
        """What a person should know before cohorts of this size are sealed so."""


def sealer(name: str) -> Sealer | None:
    """The integration behind a task's `sealing`; None for `aes-gcm`, which the core has.

    Raises as `integration` does.
    """
    return None if name == "aes-gcm" else cast(Sealer, integration(name, "sealing"))


def integration(name: str, part: str) -> Any:
    """The module `choral.integrations.NAME.PART`.

    Raises:
        ParameterError: it is not part of this installation.
    """
    place = f"choral.integrations.{name}"
    try:
        return importlib.import_module(f"{place}.{part}")
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.{part}".startswith(error.name):
            raise
        raise ParameterError(
            f"found no {place} in this installation, expected it: task or command asks for {name}",
            hint="it was taken out: install Choral whole, or seal with aes-gcm and go over HTTP",
        ) from error
