"""The aggregator's TLS certificate: served, watched, and taken up anew without a restart."""

from __future__ import annotations

import asyncio
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from choral.binding import certificates
from choral.errors import ParameterError

_LOOK = 5.0  # seconds between two looks at the files
_REMIND = 86400.0  # seconds between two warnings of a near expiry

log = structlog.get_logger("choral.tls")


class ServerCertificate:
    """Certificate and key in two files, as contexts for connections.

    Attributes:
        context: to serve with. What it hands out changes with the files; open connections stay.
        expires: when the certificate that is handed out stops being valid.

    Raises:
        ParameterError: files that are not there, no PEM, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._seen = self._look()
        self._current, self.expires = self._load()
        self.context, _ = self._load()
        # asked at the start of every handshake, whether the client names a host or not
        self.context.sni_callback = self._hand_out

    @property
    def seconds_left(self) -> float:
        """Until it expires; negative afterwards."""
        return (self.expires - datetime.now(UTC)).total_seconds()

    def status(self) -> dict[str, Any]:
        return {"expires": self.expires.isoformat(), "seconds_left": round(self.seconds_left)}

    def reload(self) -> bool:
        """Take up the files if they have changed and are good; whether they were."""
        seen = self._look()
        if seen == self._seen or None in seen:
            return False
        try:
            self._current, self.expires = self._load()
        except ParameterError as error:  # perhaps only one of the two is new yet
            log.warning("the changed certificate cannot be used, the old one stays", reason=error.reason)
            return False
        finally:
            self._seen = seen
        log.info("a new certificate is in use", expires=self.expires.isoformat())
        return True

    def warn(self) -> None:
        """Say so when it expires soon."""
        if self.seconds_left < certificates.WARN_DAYS * 86400:
            log.warning(
                "the certificate has expired" if self.seconds_left < 0 else "the certificate expires soon",
                expires=self.expires.isoformat(), days_left=int(self.seconds_left // 86400),
                hint="`choral tls renew`; it is taken up without a restart",
            )  # fmt: skip

    async def watch(self, *, every: float = _LOOK) -> None:
        """Look at the files for ever; warn at the start, and once a day."""
        warned = time.monotonic()
        self.warn()
        while True:
            await asyncio.sleep(every)
            if await asyncio.to_thread(self.reload) or time.monotonic() - warned > _REMIND:
                warned = time.monotonic()
                self.warn()

    def _hand_out(self, connection: Any, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _look(self) -> tuple[Any, ...]:
        """What changes when a file is replaced or rewritten, also through a link."""
        found: list[Any] = []
        for path in self._files:
            try:
                seen = path.stat()
                found.append((seen.st_mtime_ns, seen.st_ino, seen.st_size))
            except OSError:
                found.append(None)
        return tuple(found)

    def _load(self) -> tuple[ssl.SSLContext, datetime]:
        certificate, key = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(certificate, key, password="")
            return context, certificates.expires(certificate.read_bytes())
        except (OSError, ssl.SSLError) as error:
            raise ParameterError(
                f"{certificate} and {key} cannot be used for TLS ({error.strerror or error})",
                hint="a PEM certificate and its own PEM key, without a password, readable by this user",
            ) from error
