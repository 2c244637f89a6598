"""Writes one wrong row into gold, with another Delta writer: what verify has to find."""

import sys

import polars
from deltalake import write_deltalake

folder = f"{sys.argv[1]}/gold/inventory_current"
gold = polars.read_delta(folder)
first = polars.int_range(polars.len()) == 0
wrong = gold.with_columns(
    polars.when(first).then(polars.col("current_inventory") + 1).otherwise(polars.col("current_inventory")).alias("current_inventory"))
write_deltalake(folder, wrong, mode="overwrite")
