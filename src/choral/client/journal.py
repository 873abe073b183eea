"""What a member must not forget: which updates it has sent, and how far it has seen the log (§5).

One SQLite file in the member's own state folder. An update is marked spent, on disk, before a byte of
its masked vector is sent.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from choral.errors import ParameterError, SpentError, TwoProcesses
from choral.federation.records import Record
from choral.protocol import wire

FILE = "journal.sqlite"
NOTHING = b""  # in place of a digest: the vector says nothing of this member's data, and may go out again
_LAYOUT = 2
# Layout 1 took an update for spent under every model: its index goes, its rows stay.
_SCHEMA = f"""
create table if not exists head (one integer primary key check (one = 1), data blob not null);
create table if not exists spent (
    round_id blob primary key, base integer not null, parameters blob not null, digest blob not null
);
drop index if exists spent_once;
create unique index if not exists spent_once_a_model on spent (parameters, digest) where length(digest) > 0;
pragma user_version = {_LAYOUT};
"""


@dataclass(frozen=True)
class Spent:
    """One masked vector that was, or was about to be, sent."""

    round_id: bytes
    base: int


class Journal:
    """The member's memory. Holds a lock on its file while it is open.

    Raises:
        TwoProcesses: another process has this journal open.
        ParameterError: the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / FILE
        self._lock = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.chmod(0o600)  # also that of an earlier release
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0.2, check_same_thread=False)
            self._db.execute("pragma locking_mode = exclusive")
            self._db.execute("pragma synchronous = full")
            self._db.execute("begin exclusive")
            self._db.execute("commit")
            (layout,) = self._db.execute("pragma user_version").fetchone()
            if layout > _LAYOUT:
                raise sqlite3.DatabaseError(
                    f"layout {layout} is of a later release, this one knows {_LAYOUT}"
                )
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            if hasattr(self, "_db"):
                self._db.close()
            if "locked" in str(error):
                raise TwoProcesses(
                    f"{path} is in use: another process is running as this member",
                    hint="run one process a member; stop the other one first",
                ) from error
            raise ParameterError(
                f"{path}: {error}", hint="the state folder must be writable by this user, the journal whole"
            ) from error
        except OSError as error:
            raise ParameterError(
                f"{folder}: cannot be used as state folder ({error.strerror})",
                hint="it must be a folder that this user may write in",
            ) from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """The database, for one thread at a time; IntegrityError is left to the caller."""
        with self._lock:
            try:
                yield self._db
            except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
                raise ParameterError(
                    f"the journal cannot be used: {error}", hint="is the disk full?"
                ) from error

    def head(self) -> Record | None:
        """The newest record that this member has verified."""
        with self._using() as db:
            row = db.execute("select data from head").fetchone()
        return wire.decode(Record, row[0]) if row else None

    def saw(self, record: Record) -> None:
        with self._using() as db:
            db.execute("insert or replace into head values (1, ?)", (wire.encode(record),))

    def spend(self, round_id: bytes, base: Record, digest: bytes) -> None:
        """Mark an update as sent, durably. Afterwards it may be sent, in this round only.

        Args:
            digest: of the encoded update, before masks; `NOTHING` for a vector that says nothing.

        Raises:
            SpentError: this very update was sent from this model in an earlier round.
        """
        try:
            with self._using() as db:
                db.execute(
                    "insert into spent values (?, ?, ?, ?)", (round_id, base.version, base.parameters, digest)
                )
        except sqlite3.IntegrityError:
            raise SpentError(
                "this very update was sent before, in a round that may have ended without it",
                hint="two sums that differ in one member would give that member away (§5)",
            ) from None

    def attempts(self, base: Record) -> int:
        """How many masked vectors were sent from this model, under whatever version number."""
        return self._count("select count(*) from spent where parameters = ?", base.parameters)

    def told(self, base: Record) -> int:
        """How many of them said something of this member's data."""
        return self._count(
            "select count(*) from spent where parameters = ? and length(digest) > 0", base.parameters
        )

    def sent(self) -> int:
        """How many masked vectors were sent, ever."""
        return self._count("select count(*) from spent")

    def spent(self, base: Record, digest: bytes) -> bool:
        """Whether this very update was sent before from this model."""
        query = "select count(*) from spent where parameters = ? and digest = ?"
        return self._count(query, base.parameters, digest) > 0

    def _count(self, query: str, *values: bytes) -> int:
        with self._using() as db:
            return int(db.execute(query, values).fetchone()[0])

    def last(self) -> Spent | None:
        """The newest spent update."""
        with self._using() as db:
            row = db.execute("select round_id, base from spent order by rowid desc limit 1").fetchone()
        return Spent(*row) if row else None
