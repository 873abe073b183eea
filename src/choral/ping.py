"""`python -m choral.ping [FOLDER]`: is the participant of this folder well? Exit code 0 if so.

For health checks of containers: it needs nothing but the standard library, so that it is cheap to start.
The aggregator is asked over its own port, a member by the heartbeat in its state folder.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
import time
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HEARTBEAT = "heartbeat"  # a file that a running member touches
STALE = 60.0  # seconds without a touch, after which its event loop counts as stuck
_FOLDER = "/etc/choral"


def main(arguments: list[str]) -> int:
    """Say how it is; 0 if well."""
    path = "/readyz"
    if "--live" in arguments:  # alive, if not ready: a full disk is no reason to restart a process
        arguments, path = [each for each in arguments if each != "--live"], "/livez"
    if len(arguments) > 1 or any(each.startswith("-") for each in arguments):
        print("usage: python -m choral.ping [--live] [FOLDER]", file=sys.stderr)
        return 2
    return look(arguments[0] if arguments else None, path)


def look(where: str | None, path: str) -> int:
    """Say how the participant of the folder `where` is; 0 if well."""
    folder = Path(where or os.environ.get("CHORAL_FOLDER", _FOLDER))
    try:
        aggregator = (folder / "initial.safetensors").exists()
        said = _ask(folder, path) if aggregator else _member(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, http.client.HTTPException) as error:
        print(f"not well: {_printable(_why(error))}", file=sys.stderr)
        print(f"  hint: `choral doctor {_printable(str(folder))}` looks at everything", file=sys.stderr)
        return 1
    print(_printable(said))
    return 0


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, http.client.HTTPException):
        return "what answers at the aggregator's port does not speak HTTP"
    if isinstance(error, LookupError | TypeError | AttributeError):
        return "federation.toml or settings.toml is not as `choral init` made it"
    return str(error)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _ask(folder: Path, path: str) -> str:
    url = urlsplit(_toml(folder / "federation.toml")["aggregator"]["url"])
    settings = _toml(folder / "settings.toml") if (folder / "settings.toml").exists() else {}

    def knob(name: str, default: Any) -> Any:
        return os.environ.get(f"CHORAL_{name.upper()}") or settings.get(name) or default

    own = "::1" if ":" in (url.hostname or "") else "127.0.0.1"
    host = str(knob("host", own)).replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    host = "::1" if host == "::" else host
    port = int(knob("port", url.port or 8750))
    connection: http.client.HTTPConnection
    if knob("tls_certificate", (folder / "server.pem").exists()):
        # not verified: it is this machine's own process, and one with an expired certificate is not unwell
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=4, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=4)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read(4096).decode(errors="replace").strip()
    if answer.status != 200:
        raise ValueError(f"{path} answered {answer.status}: {body}")
    return body


def _member(folder: Path) -> str:
    beat = Path(os.environ.get("CHORAL_STATE") or folder / "state") / HEARTBEAT
    silent = time.time() - beat.stat().st_mtime
    if silent > STALE:
        raise ValueError(f"{beat} was touched {silent:.0f} s ago")
    return f"alive {max(0.0, silent):.0f} s ago"


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
