"""Opens a table as three engines do, waits until a file appears, and only then reads the rows of the version that it opened.

Prints one line "opened N", and at the end one line for each engine: its name, the rows it read and the sum of a column, or
what kept it from reading. Exit status 1 if one of them could not read.
"""

import sys
import time
from pathlib import Path

import duckdb
import polars
from delta_log import Table
from deltalake import DeltaTable, QueryBuilder

folder, column, go = sys.argv[1], sys.argv[2], Path(sys.argv[3])
connection = duckdb.connect()
by_delta_rs = DeltaTable(folder)
version = by_delta_rs.version()
by_polars = polars.scan_delta(folder, version=version)
by_duckdb = Table(folder, connection, version)


def with_delta_rs():
    rows = QueryBuilder().register("opened", by_delta_rs).execute(f"select count(*) as n, sum({column}) as s from opened").read_all()
    return rows["n"][0].as_py(), rows["s"][0].as_py()


def with_polars():
    return by_polars.select(polars.len(), polars.col(column).cast(polars.Int64).sum()).collect().row(0)


def with_duckdb():
    files = [file for file, _ in by_duckdb.paths()]
    return connection.execute(f"SELECT count(*), sum({column})::BIGINT FROM read_parquet(?)", [files]).fetchone()


print(f"opened {version}", flush=True)
while not go.exists():
    time.sleep(0.05)
failed = 0
for name, read in [("delta-rs", with_delta_rs), ("polars", with_polars), ("duckdb", with_duckdb)]:
    try:
        count, total = read()
        print(name, count, total)
    except Exception as error:  # whatever the engine raises is the finding
        print(name, "cannot read:", str(error).splitlines()[0])
        failed = 1
sys.exit(failed)
