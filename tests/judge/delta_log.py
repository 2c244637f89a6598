"""Which files of a Delta table are live: its log replayed, from the newest checkpoint on.

Written from the protocol's description, with nothing of onhand's: JSON entries add and remove files, a checkpoint is the
state of one version as Parquet, `_last_checkpoint` names the newest one that its writer knows of.
"""

import json
import re
from pathlib import Path
from urllib.parse import unquote

ENTRY = re.compile(r"^(\d{20})\.json$")
CHECKPOINT = re.compile(r"^(\d{20})\.checkpoint\.parquet$")


class LogError(Exception):
    """The log does not say what the table is."""


class Table:
    """A table at a version; the newest, if none is named."""

    def __init__(self, folder, connection, at=None):
        self.folder = Path(folder)
        self.files = {}
        self.metadata = None
        self.protocol = None
        self.version = -1
        self._replay(connection, at)

    def _replay(self, connection, at):
        log = self.folder / "_delta_log"
        if not log.is_dir():
            raise LogError(f"{self.folder} is no Delta table: it has no _delta_log")
        names = [path.name for path in log.iterdir()]
        entries = sorted(int(m[1]) for m in map(ENTRY.match, names) if m)
        checkpoints = sorted(int(m[1]) for m in map(CHECKPOINT.match, names) if m)
        hint = log / "_last_checkpoint"
        if hint.exists():
            named = json.loads(hint.read_text())["version"]
            if named not in checkpoints:
                raise LogError(f"{hint} names version {named}, of which there is no checkpoint")
        if at is not None:
            entries = [version for version in entries if version <= at]
            checkpoints = [version for version in checkpoints if version <= at]
        if checkpoints:
            self._read_checkpoint(log / f"{checkpoints[-1]:020}.checkpoint.parquet", connection)
            self.version = checkpoints[-1]
        for version in entries:
            if version <= self.version:
                continue
            if version != self.version + 1:
                raise LogError(f"{log}: version {self.version + 1} is missing before {version}")
            for line in (log / f"{version:020}.json").read_text().splitlines():
                if line.strip():
                    self._apply(json.loads(line))
            self.version = version
        if self.metadata is None:
            raise LogError(f"{log}: no entry describes the table")

    def _read_checkpoint(self, path, connection):
        rows = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
        columns = [column[0] for column in rows.description]
        for row in rows.fetchall():
            action = {name: value for name, value in zip(columns, row) if value is not None}
            action.pop("remove", None)  # a tombstone: its file is not live
            self._apply(action)

    def _apply(self, action):
        if "add" in action:
            add = action["add"]
            if add.get("deletionVector"):
                raise LogError(f"{self.folder}: {add['path']} has a deletion vector")
            self.files[unquote(add["path"])] = dict(add.get("partitionValues") or {})
        if "remove" in action:
            self.files.pop(unquote(action["remove"]["path"]), None)
        if "metaData" in action:
            self.metadata = action["metaData"]
        if "protocol" in action:
            self.protocol = action["protocol"]

    def paths(self):
        """Absolute paths of the live files, with their partition values."""
        return [(str(self.folder / path), values) for path, values in sorted(self.files.items())]
