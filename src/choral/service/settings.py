"""Every knob of the aggregator, checked once: `settings.toml`, environment, secrets directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from choral.errors import ParameterError
from choral.federation.task import read_toml

Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]


class Settings(BaseModel):
    """Settings of one aggregator. Each can be given as `CHORAL_<NAME>` in the environment.

    Attributes:
        host, port: where to listen; by default what the federation's URL says.
        state: folder of the SQLite file.
        cohort: how many members a cohort aims at; by default all that are enrolled.
        join_seconds: how long a cohort stays open for members that are being waited for.
        phase_seconds: deadline of each later phase.
        gone_seconds: a member whose connections broke this long ago is not waited for.
        startup_seconds: how long members that were never heard from are waited for after a start.
        pace_seconds: at least this long from one model version to the next cohort's closing.
        wait_seconds: longest wait of one request; then it is answered 202 (§7).
        clock_skew_seconds: how far a member's clock may be off.
        threads: for masks; by default the number of cores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    state: Path
    cohort: Annotated[int, Field(ge=2)] | None = None
    join_seconds: Seconds = 30.0
    phase_seconds: Seconds = 30.0
    gone_seconds: Seconds = 3.0
    startup_seconds: Annotated[float, Field(ge=0)] = 10.0
    pace_seconds: Annotated[float, Field(ge=0, le=7 * 86400)] = 0.0
    wait_seconds: Annotated[float, Field(gt=0, le=60)] = 20.0
    clock_skew_seconds: Seconds = 300.0
    threads: Annotated[int, Field(ge=1, le=256)] = os.cpu_count() or 1
    log_format: Annotated[str, Field(pattern="^(auto|text|json)$")] = "auto"


class _Gathered(BaseSettings, Settings):
    """The same, read from everywhere but the command line."""

    model_config = SettingsConfigDict(env_prefix="CHORAL_", extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # the environment goes before the file, which is handed in as initial values
        return env_settings, file_secret_settings, init_settings


def load(folder: Path, url: str, **given: Any) -> Settings:
    """Settings for the aggregator of `folder`.

    What is `given` on the command line goes first, then the environment, a secrets directory
    (`CHORAL_SECRETS_DIR`), `settings.toml`, and defaults from the federation's URL.

    Raises:
        ParameterError: every knob that is wrong.
    """
    address = urlsplit(url)
    loopback = address.hostname in ("localhost", "127.0.0.1", "::1")
    values: dict[str, Any] = {
        # behind a name that others use, listening on loopback only would make every probe fail
        "host": "127.0.0.1" if loopback else "0.0.0.0",  # noqa: S104
        "port": address.port or 8750,
        "state": folder / "state",
    }
    file = folder / "settings.toml"
    if file.exists():
        values |= read_toml(file)
    try:
        gather: Any = _Gathered  # its keyword for the secrets directory is not in its type
        gathered: _Gathered = gather(**values, _secrets_dir=os.environ.get("CHORAL_SECRETS_DIR"))
        chosen = {name: value for name, value in given.items() if value is not None}
        return Settings.model_validate(gathered.model_dump() | chosen)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, entry['loc']))}: {entry['msg']} (found {entry['input']!r:.40})"
            for entry in error.errors()
        )
        raise ParameterError(f"the aggregator's settings: {wrong}") from None
