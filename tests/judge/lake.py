"""The lake's tables as DuckDB tables, read over the Delta log's live files."""

from delta_log import Table

# Columns as the contract names them, in order; the last element is the partition column. Times become microseconds.
TABLES = {
    "silver/inventory_change": (
        "trans_id VARCHAR, store_id INTEGER, date_time TIMESTAMPTZ, change_type_id INTEGER, item_id INTEGER, "
        "quantity INTEGER, agent_id VARCHAR, epoch BIGINT, seq BIGINT", "date DATE"),
    "silver/inventory_snapshot": (
        "item_id INTEGER, employee_id INTEGER, store_id INTEGER, date_time TIMESTAMPTZ, quantity INTEGER, "
        "agent_id VARCHAR, epoch BIGINT, seq BIGINT", None),
    "silver/latest_inventory_snapshot": (
        "item_id INTEGER, employee_id INTEGER, date_time TIMESTAMPTZ, quantity INTEGER", "store_id INTEGER"),
    "silver/store": ("store_id INTEGER, name VARCHAR", None),
    "silver/item": ("item_id INTEGER, name VARCHAR, supplier_id INTEGER, safety_stock_quantity INTEGER", None),
    "silver/inventory_change_type": ("change_type_id INTEGER, change_type VARCHAR", None),
    "silver/quarantine": (
        "received_at TIMESTAMPTZ, source VARCHAR, reason VARCHAR, detail VARCHAR, payload BLOB", None),
    "ops/count_files": (
        "name VARCHAR, size BIGINT, modified TIMESTAMPTZ, rows BIGINT, planned_at TIMESTAMPTZ, error VARCHAR, "
        "batch BIGINT, after BIGINT", None),
    "ops/quarantine_replay": (
        "quarantine_id VARCHAR, received_at TIMESTAMPTZ, source VARCHAR, replay_id VARCHAR, written_at TIMESTAMPTZ, "
        "state VARCHAR, detail VARCHAR, payload BLOB", None),
    "gold/inventory_current": (
        "item_id INTEGER, snapshot_quantity INTEGER, change_quantity BIGINT, current_inventory BIGINT, "
        "date_time TIMESTAMPTZ", "store_id INTEGER"),
}


def load(connection, lake, path, at=None):
    """Makes a DuckDB table, named by the last part of `path`, of a Delta table's live rows, of its newest version or an older
    one. Returns the Delta table."""
    table = Table(f"{lake}/{path}", connection, at)
    stored, partition = TABLES[path]
    columns = [column.split() for column in stored.split(", ")]
    if partition:
        columns.append(partition.split())
    name = path.rsplit("/", 1)[1]
    made = ", ".join(f"{column} {'BIGINT' if kind == 'TIMESTAMPTZ' else kind}" for column, kind in columns)
    connection.execute(f"CREATE OR REPLACE TABLE {name} ({made})")
    if not table.files:
        return table
    key = partition.split()[0] if partition else None
    connection.execute("CREATE OR REPLACE TEMP TABLE live_files (filename VARCHAR, value VARCHAR)")
    live = [(file, values.get(key) if key else None) for file, values in table.paths()]
    connection.executemany("INSERT INTO live_files VALUES (?, ?)", live)
    picked = []
    for column, kind in columns:
        if column == key:
            picked.append(f"CAST(live_files.value AS {kind}) AS {column}")
        elif kind == "TIMESTAMPTZ":
            picked.append(f"epoch_us(file.{column}) AS {column}")
        else:
            picked.append(f"CAST(file.{column} AS {kind}) AS {column}")
    connection.execute(
        f"INSERT INTO {name} SELECT {', '.join(picked)} "
        "FROM read_parquet(?, filename = true, hive_partitioning = false) AS file "
        "JOIN live_files USING (filename)", [[file for file, _ in live]])
    return table
