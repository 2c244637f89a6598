"""Reads gold again and again, as a dashboard would, while others write it and clean up behind themselves.

reader.py LAKE SECONDS: until SIGTERM. Each version is opened with delta-rs, read by Polars, kept for so long, and read once more through
the handle of the first time: it must be the same, whatever happened to the table meanwhile. Within a version an item occurs once,
and its numbers add up. Prints FOUND and what, if something is not so; says at its end how much was read.
"""

import signal
import sys
import time
from pathlib import Path

import polars
from deltalake import DeltaTable

stopped = False


def stop(*_):
    global stopped
    stopped = True


def found(what):
    print(f"FOUND {what}", flush=True)


def look(table):
    read = polars.read_delta(table).sort("store_id", "item_id")
    if read.select("store_id", "item_id").is_duplicated().any():
        found(f"version {table.version()}: an item occurs twice")
    sums = read["snapshot_quantity"].cast(polars.Int64) + read["change_quantity"]
    if not (sums == read["current_inventory"]).all():
        found(f"version {table.version()}: numbers do not add up")
    return read


def main():
    lake, keep = Path(sys.argv[1]), float(sys.argv[2])
    signal.signal(signal.SIGTERM, stop)
    gold = lake / "gold" / "inventory_current"
    while not stopped and not DeltaTable.is_deltatable(str(gold)):
        time.sleep(0.2)
    versions, newest = 0, -1
    while not stopped:
        table = DeltaTable(str(gold))
        if table.version() < newest:
            found(f"version {table.version()} after {newest}")
        versions += table.version() > newest
        newest = table.version()
        first = look(table)
        until = time.monotonic() + keep
        while not stopped and time.monotonic() < until:
            time.sleep(0.1)
        if not look(table).equals(first):
            found(f"version {newest} is not what it was")
    print(f"read {versions} versions, up to {newest}", flush=True)


if __name__ == "__main__":
    main()
