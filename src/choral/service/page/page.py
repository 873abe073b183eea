"""The page: its files, its events, models to download, and who may have them."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from urllib.parse import parse_qs

from quart import Quart, Response, request

from choral.federation.enrolment import Participant
from choral.learning import model_file
from choral.service.http.bodies import read_body
from choral.service.http.exchange import at_end
from choral.service.http.guard import Guard
from choral.service.http.problems import Refused
from choral.service.http.turns import Lending
from choral.service.page.feed import Feed
from choral.service.rounds.requests import Rounds
from choral.service.state.sqlite import Store

FILES = Path(__file__).parent / "dashboard"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def add_page(
    app: Quart, aggregator: Participant, rounds: Rounds, store: Store, models: Lending[bytes]
) -> Feed:
    """Put the page and what it asks for on `app`; of `models` each is in memory once."""
    feed = Feed(aggregator, rounds, store)
    guard = Guard(rounds.settings)
    files = {path.name: path.read_bytes() for path in FILES.iterdir() if path.suffix in _KINDS}
    tags = {name: hashlib.sha256(data).hexdigest()[:16] for name, data in files.items()}

    def file(name: str, status: int = 200) -> Response:
        if name not in files:
            raise Refused(404, "http", f"there is no file {name!r:.80} here")
        headers = {**_HEADERS, "ETag": f'"{tags[name]}"', "Cache-Control": "no-cache"}
        if status == 200 and tags[name] in request.if_none_match:
            return Response(b"", 304, headers)
        return Response(files[name], status, headers, content_type=_KINDS[Path(name).suffix])

    @app.get("/")
    async def page() -> Response:
        if guard.knows(request.args.get("token", "")):
            return guard.let_in(Response(b"", 303, {"Location": "./"}))  # the token leaves the address bar
        try:
            guard.check()
        except Refused as error:
            if error.status == 401:
                return file("sign-in.html", 401)
            if "text/html" in request.headers.get("Accept", ""):  # a person
                return file("closed.html", error.status)
            raise
        return file("index.html")

    @app.post("/")
    async def sign_in() -> Response:
        form = (await read_body(4096, 10)).decode("utf-8", "replace")
        if guard.knows(parse_qs(form).get("token", [""])[0]):
            return guard.let_in(Response(b"", 303, {"Location": "./"}))
        return file("sign-in.html", 401)

    @app.get("/dashboard/<name>")
    async def static(name: str) -> Response:
        if guard.mode != "token":  # the form to sign in has a style, too
            guard.check()
        return file(name)

    @app.get("/v1/events")
    async def events() -> Response:
        guard.check()
        feed.room()
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **_HEADERS}
        return Response(feed.pictures(), 200, headers, content_type="text/event-stream")

    @app.get("/v1/versions")
    async def versions() -> Response:
        guard.check()
        data = await feed.versions(max(0, request.args.get("before", 0, int)))
        return Response(data, 200, _HEADERS, content_type="application/json")

    @app.get("/models/<int:version>")
    async def model(version: int) -> Response:
        guard.check()
        found = await asyncio.to_thread(store.records, version - 1, 1)
        if not found:
            raise Refused(404, "record", f"there is no version {version}")
        digest = found[0].parameters

        def load() -> bytes:
            data = store.blob(digest)
            if data is None or model_file.digest(data) != digest:
                raise Refused(500, "record", f"what is stored is not the model of version {version}")
            return data

        # not the one that members fetch: they check it themselves
        data = await models.lend(b"page" + digest, load, at_end)
        name = f"{aggregator.task.name}-v{version}.safetensors"
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "ETag": f'"{digest.hex()}"',
            **_HEADERS,
        }
        return Response(data, 200, headers, content_type="application/vnd.safetensors")

    return feed
