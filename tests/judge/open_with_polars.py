"""Opens every table of a lake with Polars, through its own Delta reader. Exit status 1 if one cannot be read."""

import sys
from pathlib import Path

import polars

failed = 0
for log in sorted(Path(sys.argv[1]).glob("*/*/_delta_log")):
    folder = log.parent
    try:
        rows = polars.scan_delta(str(folder)).collect()
        print(f"{folder.parent.name}/{folder.name}: {rows.height} rows, {', '.join(rows.columns)}")
    except Exception as error:  # whatever the reader raises is the finding
        print(f"{folder.parent.name}/{folder.name}: CANNOT BE READ: {error}")
        failed = 1
sys.exit(failed)
