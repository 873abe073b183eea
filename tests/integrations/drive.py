"""PySyft's mock of Google Drive over a folder, so that several processes see one Drive.

`syft.sync.connections.drive.mock_drive_service` keeps its files in a dictionary of one process. Here the
dictionary is read from a folder and written to it; everything else, permissions included, is PySyft's own.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from syft.sync.connections.drive.gdrive_transport import GDriveConnection
from syft.sync.connections.drive.mock_drive_service import MockDriveFile, MockDriveService, MockPermission


class FolderStore:
    """A Drive in a folder: one JSON file each for a file's metadata and permissions, one for its content."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def _write(self, name: str, data: bytes) -> None:
        draft = self.root / f".{uuid.uuid4().hex}"
        draft.write_bytes(data)
        os.replace(draft, self.root / name)

    @property
    def files(self) -> dict[str, MockDriveFile]:
        found = {}
        for path in self.root.glob("*.file"):
            file = self.get_file(path.stem)
            if file is not None:
                found[file.id] = file
        return found

    def get_file(self, file_id: str) -> MockDriveFile | None:
        try:
            file = MockDriveFile.model_validate_json((self.root / f"{file_id}.file").read_bytes())
            file.content = (self.root / f"{file_id}.content").read_bytes()
        except FileNotFoundError:
            return None
        return file

    def add_file(self, file: MockDriveFile) -> None:
        self._write(f"{file.id}.content", file.content)
        owner = MockPermission(type="user", role="owner", emailAddress=file.owners[0]["emailAddress"])
        self._write(f"{file.id}.permissions", owner.model_dump_json().encode() + b"\n")
        self._write(f"{file.id}.file", file.model_dump_json(exclude={"content"}).encode())

    def delete_file(self, file_id: str) -> None:
        for kind in ("file", "content", "permissions"):
            (self.root / f"{file_id}.{kind}").unlink(missing_ok=True)

    def add_permission(self, file_id: str, permission: MockPermission) -> None:
        with (self.root / f"{file_id}.permissions").open("ab") as file:
            file.write(permission.model_dump_json().encode() + b"\n")

    def get_permissions(self, file_id: str) -> list[MockPermission]:
        try:
            lines = (self.root / f"{file_id}.permissions").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [MockPermission.model_validate_json(line) for line in lines]

    def named(self, part: str) -> list[MockDriveFile]:
        """Files with `part` in their name."""
        return [file for file in self.files.values() if part in file.name]


def connection(root: Path, email: str) -> Any:
    """PySyft's own connection code, over the Drive in `root`."""
    store: Any = FolderStore(root)
    return GDriveConnection.from_service(email, MockDriveService(store, email))
