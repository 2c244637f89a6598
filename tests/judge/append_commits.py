"""Makes a Delta table at a URI, in as many commits as asked, and reads it anew: prints its version and its rows' sum.

Where the storage is, and with which keys, the environment says.
"""

import sys

import polars
from deltalake import DeltaTable, QueryBuilder, write_deltalake

uri, commits = sys.argv[1], int(sys.argv[2])
for number in range(commits):
    write_deltalake(uri, polars.DataFrame({"number": [number]}), mode="append")
table = DeltaTable(uri)
total = QueryBuilder().register("rows", table).execute("select sum(number) as total from rows").read_all()
print(table.version(), total["total"][0].as_py())
