"""Says whether the events of one agent came into each table of silver in their order: each commit of its log has only numbers
above all that were there before.

order.py LAKE AGENT: exit status 0 they did, 1 they did not, 2 nothing tells. Reads the files that each commit added, merged
away since or not; so not where a vacuum has removed them.
"""

import json
import sys
from pathlib import Path
from urllib.parse import unquote

import duckdb
from delta_log import ENTRY, LogError

TABLES = ["inventory_change", "inventory_snapshot"]
NOTHING = (-1, -1)


def commits(folder):
    """Each version of a table with the files that brought it rows."""
    log = folder / "_delta_log"
    versions = sorted(int(m[1]) for m in map(ENTRY.match, (path.name for path in log.iterdir())) if m)
    if not versions or versions != list(range(len(versions))):
        raise LogError(f"{log}: entries are missing")
    for version in versions:
        actions = [json.loads(line) for line in (log / f"{version:020}.json").read_text().splitlines() if line.strip()]
        added = [action["add"] for action in actions if "add" in action]
        files = [str(folder / unquote(add["path"])) for add in added if add["dataChange"]]
        if files:
            yield version, files


def main():
    lake, agent = Path(sys.argv[1]), sys.argv[2]
    connection, seen, found = duckdb.connect(), [], False
    for table in TABLES:
        newest, with_events = NOTHING, 0
        for version, files in commits(lake / "silver" / table):
            least, most = connection.execute(
                "SELECT min((epoch, seq)), max((epoch, seq)) FROM read_parquet(?) WHERE agent_id = ?", [files, agent]).fetchone()
            if least is None:
                continue
            with_events += 1
            if tuple(least) <= newest:
                print(f"{table}, version {version}: {tuple(least)} after {newest}")
                found = True
            newest = max(newest, tuple(most))
        seen.append(with_events)
    if not any(seen):
        raise LogError(f"silver has no events of {agent}")
    print(sum(seen), "commits")
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (duckdb.Error, OSError, LogError) as error:
        print(error)
        sys.exit(2)
