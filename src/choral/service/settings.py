"""Every knob of the aggregator, checked once: `settings.toml`, environment, secrets directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from choral.binding import certificates
from choral.errors import ParameterError
from choral.federation.address import address
from choral.federation.files import faults, read_toml

LEAST_TOKEN = 16
LONGEST_WAIT = 30.0  # seconds
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
        wait_seconds: longest wait of one request, at most 30; then it is answered 202 (§7).
        clock_skew_seconds: how far a member's clock may be off.
        connections: most that are open at once; by default as many as there are files for, at most 8192.
        connections_per_address: most of them from one address; by default half of all, at most 1024.
        threads: for masks; by default the number of cores.
        dashboard: nobody sees it, whoever is on this machine, or whoever knows `dashboard_token`.
        metrics: nobody reads them, whoever is on this machine, or anybody who reaches the port.
        metrics_port: where they are, with the health checks, instead of `/metrics` on the main port.
        tls_certificate, tls_key: PEM files to serve TLS with; by default `server.pem` and `server.key` of the
            aggregator's folder, where they are there.
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
    wait_seconds: Annotated[float, Field(gt=0)] = 20.0
    clock_skew_seconds: Seconds = 300.0
    connections: Annotated[int, Field(ge=16)] | None = None
    connections_per_address: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1, le=256)] = os.cpu_count() or 1
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    dashboard: Literal["off", "local", "token"] = "local"
    dashboard_token: SecretStr | None = None
    metrics: Literal["off", "local", "open"] = "local"
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    log_format: Annotated[str, Field(pattern="^(auto|text|json)$")] = "auto"

    @field_validator("wait_seconds")
    @classmethod
    def _before_the_client_gives_up(cls, seconds: float) -> float:
        if seconds > LONGEST_WAIT:
            raise ValueError(f"at most {LONGEST_WAIT:g}: members hang up on an answer that takes 40 s (§7.3)")
        return seconds

    @model_validator(mode="after")
    def _token_is_one(self) -> Settings:
        token = self.dashboard_token.get_secret_value() if self.dashboard_token else ""
        if self.dashboard == "token" and len(token) < LEAST_TOKEN:
            raise ValueError(
                f"dashboard = 'token' needs a dashboard_token of at least {LEAST_TOKEN} characters"
            )
        return self


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
    at = address(url)
    every, own = ("::", "::1") if ":" in at.host else ("0.0.0.0", "127.0.0.1")  # noqa: S104
    values: dict[str, Any] = {
        # behind a name that others use, listening on loopback only would make every probe fail
        "host": own if at.loopback else every,
        "port": at.port or 8750,
        "state": folder / "state",
    }
    if (folder / certificates.CERTIFICATE).exists():
        values |= {
            "tls_certificate": folder / certificates.CERTIFICATE,
            "tls_key": folder / certificates.KEY,
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
        raise ParameterError(
            f"the aggregator's settings: {faults(error, hidden='token')}",
            hint="docs/operating.md lists them; `choral serve --help` those that are options",
        ) from None
