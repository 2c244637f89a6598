"""Opens every table of a lake with Polars, through its own Delta reader, and compares the rows of those in the contract with
DuckDB's over the log's live files. Exit status 1 if one cannot be read, or differs.
"""

import sys
from collections import Counter
from pathlib import Path

import duckdb
import polars
from lake import TABLES, load


def rows_by_polars(frame, columns):
    times = [name for name, kind in frame.schema.items() if isinstance(kind, polars.Datetime)]
    return Counter(frame.with_columns(polars.col(times).dt.epoch("us")).select(columns).iter_rows())


lake = Path(sys.argv[1])
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
failed = 0
for log in sorted(lake.glob("*/*/_delta_log")):
    folder = log.parent
    path = f"{folder.parent.name}/{folder.name}"
    try:
        frame = polars.scan_delta(str(folder)).collect()
        finding = f"{frame.height} rows, {', '.join(frame.columns)}"
        if path in TABLES:
            load(connection, lake, path)
            result = connection.execute(f"SELECT * FROM {folder.name}")
            columns = [column[0] for column in result.description]
            by_duckdb, by_polars = Counter(result.fetchall()), rows_by_polars(frame, columns)
            if by_duckdb != by_polars:
                finding = f"DIFFERS: DuckDB {by_duckdb - by_polars}, Polars {by_polars - by_duckdb}"
                failed = 1
    except Exception as error:  # whatever the reader raises is the finding
        finding = f"CANNOT BE READ: {error}"
        failed = 1
    print(f"{path}: {finding}")
sys.exit(failed)
