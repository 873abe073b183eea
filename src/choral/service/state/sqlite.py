"""What the aggregator knows for good, in one SQLite file. It is saved before it is answered (§5)."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from choral.errors import Ending, NoRoom, ParameterError
from choral.federation.records import Record
from choral.protocol import wire
from choral.service.state.facts import Facts, RoundRow

FILE = "aggregator.sqlite"
_SCHEMA = """
create table records (
    version integer primary key, round_id blob not null, digest blob not null, data blob not null
);
create unique index record_of_round on records (round_id) where version > 0;
create table blobs (digest blob primary key, data blob not null) without rowid;
create table rounds (
    id blob primary key, base integer not null, opened real not null, state text not null,
    seconds real, details text not null
);
"""
# what each layout added to the one before
_LAYOUTS = (
    _SCHEMA,
    """
create table kept_out (name text primary key, round blob not null, reason text not null, since real not null)
    without rowid;
create table pieces (digest blob not null, at integer not null, data blob not null, primary key (digest, at))
    without rowid;
create table about (key text primary key, value text not null) without rowid;
""",
)
_VERSION = len(_LAYOUTS)
_PIECE = 1 << 20  # bytes of a model in one row
_LEAST_FREE = 16 << 20  # bytes


@dataclass(frozen=True)
class Kept:
    """Why a member is kept out of cohorts: what came out in a round, and when (seconds since 1970)."""

    round: bytes
    reason: str
    since: float


class Store:
    """The SQLite file of one aggregator; safe to use from several threads.

    Args:
        folder: where the file is, or is to be made.
        read_only: only look, also while an aggregator is running.
        beside: change what may be changed while an aggregator is running.

    Raises:
        ParameterError: the file cannot be opened, is in use, or a newer Choral wrote it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, beside: bool = False) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()
        self._guard: sqlite3.Connection | None = None
        mine = not (read_only or beside)
        if not mine and not self.path.exists():
            raise ParameterError(
                f"{self.path}: no such file", hint="has the aggregator run from this folder?"
            )
        try:
            if mine:
                if not folder.is_dir():  # one that is there has the mode that somebody chose
                    folder.mkdir(mode=0o700, parents=True)
                self._guard = _alone(folder / "lock")
                _private(self.path)
            self._db = self._connect("rw" if mine or beside else "ro")
            if mine:
                self._db.execute("pragma journal_mode = wal")
                self._db.execute("pragma synchronous = full")
            (self._layout,) = self._db.execute("pragma user_version").fetchone()
            if mine and self._layout < _VERSION:
                self._lay_out()
        except (sqlite3.Error, OSError) as error:
            self._let_go()
            raise ParameterError(
                f"{self.path}: cannot be opened ({getattr(error, 'strerror', None) or error})",
                hint="is the folder there, and writable?",
            ) from error
        if self._layout > _VERSION:
            self._let_go()
            raise ParameterError(
                f"{self.path} was written by a newer Choral"
                f" (layout {self._layout}, this one knows {_VERSION})",
                hint="run it with the Choral that wrote it, or a newer one",
            )

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(os.fsencode(self.path))}?mode={mode}",
            uri=True, check_same_thread=False, isolation_level=None, timeout=5,
        )  # fmt: skip

    def _lay_out(self) -> None:
        """Bring the file to the newest layout, in one transaction: all of it or nothing."""
        with self._write() as db:
            for layout in _LAYOUTS[self._layout :]:
                for statement in layout.split(";"):
                    db.execute(statement)
            db.execute(f"pragma user_version = {_VERSION}")
        self._layout = _VERSION

    def close(self) -> None:
        with self._lock:  # a thread may be in the middle of a commit
            self._let_go()

    def _let_go(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()
        if self._guard:
            self._guard.close()

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("begin immediate")
            try:
                yield self._db
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")

    def _read(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # ----- the model log ----------------------------------------------------------------------

    def head(self) -> Record | None:
        """The newest record, or None before the first."""
        rows = self._read("select data from records order by version desc limit 1")
        return wire.decode(Record, rows[0][0]) if rows else None

    def records(self, after: int, limit: int = 2**62) -> list[Record]:
        """Records of versions above `after`, oldest first."""
        rows = self._read("select data from records where version > ? order by version limit ?", after, limit)
        return [wire.decode(Record, data) for (data,) in rows]

    def record_of(self, round_id: bytes) -> Record | None:
        """The record that a round led to."""
        rows = self._read("select data from records where round_id = ? and version > 0", round_id)
        return wire.decode(Record, rows[0][0]) if rows else None

    def blob(self, digest: bytes) -> bytes | None:
        """A model or a rule's state by its digest."""
        with self._lock:
            whole = self._db.execute("select data from blobs where digest = ?", (digest,)).fetchone()
            if whole is not None or self._layout < 2:
                return whole[0] if whole else None
            found = io.BytesIO()
            pieces = self._db.execute("select data from pieces where digest = ? order by at", (digest,))
            any_ = False
            for (piece,) in pieces:
                found.write(piece)
                any_ = True
        return found.getvalue() if any_ else None

    def append(
        self, record: Record, blobs: Mapping[bytes, bytes | bytearray], finished: RoundRow | None = None
    ) -> None:
        """A record, what it refers to and the end of its round: all or nothing (§5)."""
        with self._write() as db:
            for digest, data in blobs.items():
                self._put_blob(db, digest, data)
            db.execute(
                "insert into records values (?, ?, ?, ?)",
                (record.version, record.round_id, record.digest, wire.encode(record)),
            )
            if finished:
                self._put(db, finished)

    @staticmethod
    def _put_blob(db: sqlite3.Connection, digest: bytes, data: bytes | bytearray) -> None:
        """In pieces: SQLite copies what it is given more than once."""
        if db.execute("select 1 from blobs where digest = ?", (digest,)).fetchone():
            return
        view = memoryview(data)
        for at in range(0, max(1, len(view)), _PIECE):
            db.execute("insert or ignore into pieces values (?, ?, ?)", (digest, at, view[at : at + _PIECE]))

    # ----- rounds -----------------------------------------------------------------------------

    def put_round(self, row: RoundRow) -> None:
        """Remember a round, or what became of it."""
        with self._write() as db:
            self._put(db, row)

    @staticmethod
    def _put(db: sqlite3.Connection, row: RoundRow) -> None:
        # a round whose sum is in the model stays done, whatever went wrong afterwards
        db.execute(
            "insert into rounds values (?, ?, ?, ?, ?, ?) on conflict (id) do update set"
            " state = excluded.state, seconds = excluded.seconds, details = excluded.details"
            " where state <> 'done'",
            (row.id, row.base, row.opened, row.state, row.seconds, json.dumps(row.facts.told())),
        )

    def count_sent(self, round_id: bytes, sent: dict[str, int]) -> None:
        """Bytes that went out in a round by phase, once the last of its answers is out."""
        with self._write() as db:
            found = db.execute("select details from rounds where id = ?", (round_id,)).fetchone()
            if found:
                facts = replace(Facts.read(json.loads(found[0])), sent=sent)
                db.execute("update rounds set details = ? where id = ?", (json.dumps(facts.told()), round_id))

    # ----- whose it is ------------------------------------------------------------------------

    def tell_about(self, **about: str) -> None:
        """Whose state this is, in words; what was said before stays."""
        with self._write() as db:
            db.executemany("insert or ignore into about values (?, ?)", about.items())

    def about(self) -> dict[str, str]:
        """Empty for a file that was begun under the first layout."""
        return dict(self._read("select key, value from about")) if self._layout > 1 else {}

    # ----- who is kept out --------------------------------------------------------------------

    def keep_out(self, name: str, kept: Kept) -> None:
        """A member that is not to be in cohorts; the first reason stays."""
        with self._write() as db:
            db.execute(
                "insert or ignore into kept_out values (?, ?, ?, ?)",
                (name, kept.round, kept.reason, kept.since),
            )

    def readmit(self, name: str) -> bool:
        """Let a member back in; whether it was kept out."""
        if self._layout < 2:
            return False
        with self._write() as db:
            return db.execute("delete from kept_out where name = ?", (name,)).rowcount > 0

    def kept_out(self) -> dict[str, Kept]:
        """By name. On a connection of its own: it is asked by the event loop, and waits for no commit."""
        if self._layout < 2:
            return {}
        db = self._connect("ro")
        try:
            rows = db.execute("select name, round, reason, since from kept_out order by name").fetchall()
        finally:
            db.close()
        return {name: Kept(round_, reason, since) for name, round_, reason, since in rows}

    # ----- around -----------------------------------------------------------------------------

    def writable(self) -> None:
        """Raises `sqlite3.Error` or `OSError` if nothing could be saved now."""
        with self._lock:
            self._db.execute("begin immediate")
            self._db.execute("rollback")
        if self.free() < _LEAST_FREE:
            raise OSError(f"less than {_LEAST_FREE >> 20} MiB are free")

    def free(self) -> int:
        """Bytes that are free where the file is."""
        return shutil.disk_usage(self.path.parent).free

    def room(self, size: int) -> None:
        """Raises `NoRoom` unless `size` bytes more can be saved. In the journal first, then in the file."""
        free, needed = self.free(), _LEAST_FREE + 2 * size
        if free < needed:
            raise NoRoom(
                f"the aggregator cannot save another model: {free >> 20} MiB are free where its state is, it"
                f" needs {-(-needed >> 20)} MiB",
                hint="members wait and go on by themselves; whoever runs it makes room on that disk",
            )

    def round(self, round_id: bytes) -> RoundRow | None:
        rows = self._read("select * from rounds where id = ?", round_id)
        return _row(rows[0]) if rows else None

    def rounds(self, limit: int = 200) -> list[RoundRow]:
        """The newest rounds, oldest first."""
        rows = self._read("select * from rounds order by opened desc, rowid desc limit ?", limit)
        return [_row(row) for row in reversed(rows)]

    def abort_open_rounds(self, reason: str) -> int:
        """After a restart: rounds that were open are over, and their members will ask."""
        details = json.dumps(Facts(reason=reason, kind=Ending.STOPPING).told())
        with self._write() as db:
            return db.execute(
                "update rounds set state = 'aborted', details = ? where state = 'open'", (details,)
            ).rowcount


def _private(file: Path) -> None:
    """Make the file its owner's only: members' names are in it. What SQLite writes beside it has its mode."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    for path in (file, file.with_name(file.name + "-wal"), file.with_name(file.name + "-shm")):
        with contextlib.suppress(FileNotFoundError, PermissionError):  # somebody else's, who lets us write
            path.chmod(0o600)


def _alone(path: Path) -> sqlite3.Connection:
    """A lock that ends with the process: two aggregators on one file would fork the log.

    SQLite's own, on a file of its own: every system has it, and it is in no reader's way.
    """
    _private(path)
    guard = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
    try:
        guard.execute("begin exclusive")
    except sqlite3.OperationalError as error:
        guard.close()
        if "locked" not in str(error):
            raise
        raise ParameterError(
            f"{path.parent} is in use: another aggregator is running from it",
            hint="stop that one first: two that sign versions would fork the log",
        ) from None
    return guard


def _row(row: tuple[Any, ...]) -> RoundRow:
    return RoundRow(row[0], row[1], row[2], row[3], row[4], Facts.read(json.loads(row[5])))
