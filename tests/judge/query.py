"""Prints what a SQL query finds in a lake, as JSON: one list of values per row. Tables are named by the last part of their path."""

import json
import sys

import duckdb
from lake import TABLES, load

connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
for path in TABLES:
    load(connection, sys.argv[1], path)
rows = connection.execute(sys.argv[2]).fetchall()
print(json.dumps([[value if isinstance(value, (int, float, str, type(None))) else str(value) for value in row] for row in rows]))
