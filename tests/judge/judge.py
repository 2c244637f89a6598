"""Judges a lake at rest with DuckDB: is gold what the rule says of silver, row for row, and is silver what was sent?

Exit status: 0 all is well, 1 something differs, 2 the lake cannot be judged. Shares no code with onhand.
"""

import argparse
import json
import sys
from pathlib import Path

import duckdb
from delta_log import ENTRY, LogError
from lake import TABLES, load

# The rule, as the contract words it. Times are microseconds since 1970.
RULE = """
WITH applicable AS (
  SELECT c.store_id, c.item_id, c.date_time, c.quantity
  FROM {changes} c JOIN {store} s USING (store_id) JOIN {change_type} t USING (change_type_id)
  WHERE NOT (s.name = 'online' AND t.change_type = 'bopis'))
SELECT l.store_id, l.item_id,
       l.quantity                                          AS snapshot_quantity,
       CAST(coalesce(sum(c.quantity), 0) AS BIGINT)        AS change_quantity,
       CAST(l.quantity + coalesce(sum(c.quantity), 0) AS BIGINT) AS current_inventory,
       greatest(l.date_time, max(c.date_time))             AS date_time
FROM {latest} l LEFT JOIN applicable c
  ON c.store_id = l.store_id AND c.item_id = l.item_id AND c.date_time >= l.date_time
GROUP BY l.store_id, l.item_id, l.quantity, l.date_time
"""
GOLD = "SELECT store_id, item_id, snapshot_quantity, change_quantity, current_inventory, date_time FROM {gold}"


class Judge:
    def __init__(self, connection):
        self.connection = connection
        self.findings = []

    def one(self, sql):
        return self.connection.execute(sql).fetchone()[0]

    def none(self, what, sql):
        """`sql` finds what must not be."""
        rows = self.connection.execute(f"SELECT * FROM ({sql}) LIMIT 5").fetchall()
        if rows:
            count = self.one(f"SELECT count(*) FROM ({sql})")
            self.findings.append(f"{what}: {count} rows, such as {rows}")

    def equal(self, what, left_name, left, right_name, right):
        """Both queries give the same rows, each as often."""
        self.none(f"{what}: in {left_name}, not in {right_name}", f"({left}) EXCEPT ALL ({right})")
        self.none(f"{what}: in {right_name}, not in {left_name}", f"({right}) EXCEPT ALL ({left})")

    def number(self, what, expected, sql):
        found = self.one(sql)
        if expected is not None and found != expected:
            self.findings.append(f"{what}: {found}, expected {expected}")


def rule(changes="inventory_change", store="store", change_type="inventory_change_type",
         latest="latest_inventory_snapshot"):
    return RULE.format(changes=changes, store=store, change_type=change_type, latest=latest)


def judge_lake(judge, in_order):
    judge.equal("gold", "gold", GOLD.format(gold="inventory_current"), "the rule over silver", rule())
    judge.none("gold: an item twice", "SELECT store_id, item_id FROM inventory_current GROUP BY ALL HAVING count(*) > 1")
    judge.none("silver: a line twice",
               "SELECT store_id, trans_id, item_id FROM inventory_change GROUP BY ALL HAVING count(*) > 1")
    judge.none("silver: a count twice",
               "SELECT store_id, item_id, date_time, quantity FROM inventory_snapshot GROUP BY ALL HAVING count(*) > 1")
    judge.none("silver: date is not the day of date_time",
               "SELECT trans_id, date, date_time FROM inventory_change WHERE date <> CAST(make_timestamp(date_time) AS DATE)")
    for table in ["store", "inventory_change_type", "item"]:
        key = {"store": "store_id", "inventory_change_type": "change_type_id", "item": "item_id"}[table]
        judge.none(f"{table}: an id twice", f"SELECT {key} FROM {table} GROUP BY ALL HAVING count(*) > 1")
    judge_latest(judge, in_order)


def judge_latest(judge, in_order):
    """The latest count is the newest; among counts of one time the later arrival, which one agent's numbers tell where its
    frames arrived in order."""
    judge.equal("latest counts", "latest_inventory_snapshot",
                "SELECT store_id, item_id, date_time FROM latest_inventory_snapshot", "inventory_snapshot",
                "SELECT store_id, item_id, max(date_time) FROM inventory_snapshot GROUP BY ALL")
    newest = """
        SELECT s.* FROM inventory_snapshot s
        JOIN (SELECT store_id, item_id, max(date_time) AS date_time FROM inventory_snapshot GROUP BY ALL)
        USING (store_id, item_id, date_time)"""
    judge.none("latest counts: no such count in inventory_snapshot", f"""
        SELECT l.store_id, l.item_id, l.quantity, l.employee_id FROM latest_inventory_snapshot l
        WHERE NOT EXISTS (SELECT 1 FROM ({newest}) s WHERE s.store_id = l.store_id AND s.item_id = l.item_id
                          AND s.quantity = l.quantity AND s.employee_id = l.employee_id)""")
    if not in_order:
        return
    judge.none("latest counts: not the later arrival", f"""
        SELECT l.store_id, l.item_id, l.quantity, n.quantity AS later FROM latest_inventory_snapshot l
        JOIN (SELECT store_id, item_id, arg_max(quantity, (epoch, seq)) AS quantity FROM ({newest})
              GROUP BY ALL HAVING count(DISTINCT agent_id) = 1 AND min(epoch) > 0) n USING (store_id, item_id)
        WHERE l.quantity <> n.quantity""")


REFERENCE = {
    "store": {"store_id": "{} AS INTEGER", "name": "{} AS VARCHAR"},
    "inventory_change_type": {"change_type_id": "{} AS INTEGER", "change_type": "{} AS VARCHAR"},
    "item": {"item_id": "{} AS INTEGER", "name": "{} AS VARCHAR", "supplier_id": "{} AS INTEGER",
             "safety_stock_quantity": "{} AS INTEGER"},
}


def judge_reference(judge, folder):
    """Silver's reference data is what its files say."""
    for table, types in REFERENCE.items():
        file = Path(folder) / f"{table}.txt"
        picked = ", ".join(f"CAST({kind.format(f'trim({column})')}) AS {column}" for column, kind in types.items())
        judge.equal(f"reference data of {table}", "silver", f"SELECT {', '.join(types)} FROM {table}", "its file",
                    f"SELECT {picked} FROM read_csv('{file}', header = true, all_varchar = true)")


def reflected(lake, version):
    """Which silver versions a commit of gold says that it reflects, by table; None where it says nothing."""
    entry = Path(lake) / "gold/inventory_current/_delta_log" / f"{version:020}.json"
    for line in entry.read_text().splitlines():
        said = json.loads(line).get("commitInfo", {}).get("onhand")
        if said is not None:
            return said
    return None


def judge_former(judge, lake, wanted):
    """So many former versions of gold, spread over its log, equal the rule over the silver versions that each names. Returns
    which were judged. The tables are those of the former versions afterwards."""
    log = Path(lake) / "gold/inventory_current/_delta_log"
    versions = sorted(int(m[1]) for m in map(ENTRY.match, (path.name for path in log.iterdir())) if m)
    said, newest = {}, None
    for version in versions[:-1]:
        # Other writers say nothing: what was said before holds.
        newest = reflected(lake, version) or newest
        if newest and "marks" not in newest:
            said[version] = newest
    former = list(said)
    if not former:
        raise LogError(f"{log}: no former version says which silver it reflects")
    picked = sorted({former[at * len(former) // wanted] for at in range(wanted)})
    for version in picked:
        for table in ["store", "inventory_change_type", "latest_inventory_snapshot", "inventory_change"]:
            load(judge.connection, lake, f"silver/{table}", said[version][table])
        load(judge.connection, lake, "gold/inventory_current", version)
        judge.equal(f"gold at version {version}", "gold", GOLD.format(gold="inventory_current"), "the rule over silver", rule())
    return picked


def judge_sent(judge, what, table, types, file, free):
    """A table of silver holds each row of one CSV file once, beside them at most rows of another, and nothing else. Columns
    that the file does not have may hold anything."""
    header = Path(file).read_text().split("\n", 1)[0].split(",")
    if unknown := [column for column in header if column not in types]:
        raise LogError(f"{file}: {table} has no {', '.join(unknown)}")
    types = {column: kind for column, kind in types.items() if column in header}
    columns = ", ".join(types)
    picked = ", ".join(f"CAST({kind.format(column)}) AS {column}" for column, kind in types.items())
    for name, path in [("sent", file), ("free", free)]:
        rows = f"SELECT * FROM read_csv('{path}', header = true, all_varchar = true)" if path else \
            f"SELECT {', '.join(f'NULL::VARCHAR AS {column}' for column in types)} WHERE false"
        judge.connection.execute(f"CREATE OR REPLACE TABLE {name}_{table} AS SELECT {picked} FROM ({rows})")
    found, sent = f"SELECT {columns} FROM {table}", f"SELECT {columns} FROM sent_{table}"
    judge.none(f"{what}: owed, and not in silver", f"({sent}) EXCEPT ALL ({found})")
    judge.none(f"{what}: in silver, and nobody sent it (so often)",
               f"({found}) EXCEPT ALL ({sent} UNION ALL SELECT {columns} FROM free_{table})")


TIME = "epoch_us(CAST({} AS TIMESTAMPTZ)) AS BIGINT"
LINE = {"store_id": "{} AS INTEGER", "trans_id": "{} AS VARCHAR", "item_id": "{} AS INTEGER", "quantity": "{} AS INTEGER",
        "date_time": TIME, "change_type_id": "{} AS INTEGER"}
COUNT = {"store_id": "{} AS INTEGER", "item_id": "{} AS INTEGER", "date_time": TIME, "quantity": "{} AS INTEGER",
         "employee_id": "{} AS INTEGER"}


def csv(connection, name, files, columns):
    """A table of CSV files with a header, with the rows' order."""
    if not files:
        connection.execute(f"CREATE TABLE {name} AS SELECT {', '.join(f'NULL::VARCHAR AS {c}' for c in columns)} WHERE false")
        return
    picked = ", ".join(columns)
    parts = " UNION ALL ".join(
        f"SELECT {picked} FROM read_csv('{file}', header = true, all_varchar = true, delim = ',', quote = '\"')" for file in files)
    connection.execute(f"CREATE TABLE {name} AS {parts}")


def judge_dataset(judge, folder):
    """Silver and gold are what the accelerator's rule makes of a dataset's own files."""
    c = judge.connection
    def find(pattern):
        return sorted(str(p) for p in Path(folder).glob(pattern) if p.suffix in (".txt", ".csv"))
    changes = [f for f in find("inventory_change_*") if not Path(f).stem == "inventory_change_type"]
    csv(c, "d_change_rows", changes, ["trans_id", "item_id", "store_id", "date_time", "quantity", "change_type_id"])
    csv(c, "d_count_rows", find("inventory_snapshot_*"), ["item_id", "employee_id", "store_id", "date_time", "quantity"])
    csv(c, "d_store_rows", find("store.*"), ["store_id", "name"])
    csv(c, "d_type_rows", find("inventory_change_type.*"), ["change_type_id", "change_type"])
    time = "epoch_us(CAST(trim(date_time) AS TIMESTAMP))"
    c.execute(f"""CREATE TABLE d_change AS
        SELECT CAST(store_id AS INTEGER) AS store_id, trim(trim(trans_id), '{{}}') AS trans_id, {time} AS date_time,
               CAST(change_type_id AS INTEGER) AS change_type_id, CAST(item_id AS INTEGER) AS item_id,
               CAST(sum(CAST(quantity AS INTEGER)) AS INTEGER) AS quantity
        FROM d_change_rows GROUP BY ALL""")
    c.execute(f"""CREATE TABLE d_count AS
        SELECT rowid AS place, CAST(store_id AS INTEGER) AS store_id, CAST(item_id AS INTEGER) AS item_id,
               CAST(employee_id AS INTEGER) AS employee_id, {time} AS date_time, CAST(quantity AS INTEGER) AS quantity
        FROM d_count_rows""")
    c.execute("""CREATE TABLE d_latest AS
        SELECT store_id, item_id, max(date_time) AS date_time, arg_max(quantity, (date_time, place)) AS quantity
        FROM d_count GROUP BY ALL""")
    c.execute("CREATE TABLE d_store AS SELECT CAST(store_id AS INTEGER) AS store_id, trim(name) AS name FROM d_store_rows")
    c.execute("""CREATE TABLE d_type AS
        SELECT CAST(change_type_id AS INTEGER) AS change_type_id, trim(change_type) AS change_type FROM d_type_rows""")
    if judge.one("SELECT count(*) FROM (SELECT store_id, trans_id, item_id FROM d_change GROUP BY ALL HAVING count(*) > 1)"):
        raise LogError(f"{folder}: a trans_id occurs at two times, so the dataset does not say what to expect")
    line = "SELECT store_id, trans_id, item_id, date_time, change_type_id, quantity FROM"
    judge.equal("lines", "silver", f"{line} inventory_change", "the dataset", f"{line} d_change")
    count = "SELECT store_id, item_id, date_time, quantity FROM"
    judge.equal("counts", "silver", f"{count} inventory_snapshot", "the dataset",
                "SELECT DISTINCT store_id, item_id, date_time, quantity FROM d_count")
    judge.equal("gold", "gold", GOLD.format(gold="inventory_current"), "the rule over the dataset",
                rule("d_change", "d_store", "d_type", "d_latest"))
    return judge.one("SELECT count(*) FROM d_change_rows"), judge.one("SELECT count(*) FROM d_count_rows")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lake")
    parser.add_argument("--expect-changes", type=int, metavar="N", help="silver holds so many lines")
    parser.add_argument("--expect-counts", type=int, metavar="N", help="silver holds so many counts")
    parser.add_argument("--expect-gold", type=int, metavar="N", help="gold holds so many rows")
    parser.add_argument("--expect-quarantine", type=int, metavar="N", help="quarantine holds so many rows")
    parser.add_argument("--expect-lines", metavar="FILE", help="silver holds just these lines: a CSV file")
    parser.add_argument("--free-lines", metavar="FILE", help="beside them, it may hold these")
    parser.add_argument("--expect-count-rows", metavar="FILE", help="silver holds just these counts: a CSV file")
    parser.add_argument("--free-count-rows", metavar="FILE", help="beside them, it may hold these")
    parser.add_argument("--any-order", action="store_true", help="an agent's frames need not have arrived in order")
    parser.add_argument("--reference", metavar="DIR", help="silver's reference data is what these files say")
    parser.add_argument("--former", type=int, metavar="N", help="judge so many former versions of gold, too")
    parser.add_argument("--dataset", metavar="DIR", help="silver and gold are what these files say")
    arguments = parser.parse_args()
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    judge = Judge(connection)
    try:
        versions = {}
        for path in TABLES:
            table = load(connection, arguments.lake, path)
            versions[path] = table.version
            if (table.protocol["minReaderVersion"], table.protocol["minWriterVersion"]) != (1, 2):
                judge.findings.append(f"{path}: protocol {table.protocol}, the contract says 1 and 2")
        judge_lake(judge, not arguments.any_order)
        judge.number("lines in silver", arguments.expect_changes, "SELECT count(*) FROM inventory_change")
        judge.number("counts in silver", arguments.expect_counts, "SELECT count(*) FROM inventory_snapshot")
        judge.number("rows in gold", arguments.expect_gold, "SELECT count(*) FROM inventory_current")
        judge.number("rows in quarantine", arguments.expect_quarantine, "SELECT count(*) FROM quarantine")
        if arguments.expect_lines:
            judge_sent(judge, "lines", "inventory_change", LINE, arguments.expect_lines, arguments.free_lines)
        if arguments.expect_count_rows:
            judge_sent(judge, "counts", "inventory_snapshot", COUNT, arguments.expect_count_rows, arguments.free_count_rows)
        if arguments.reference:
            judge_reference(judge, arguments.reference)
        if arguments.dataset:
            judge_dataset(judge, arguments.dataset)
        sizes = ", ".join(f"{judge.one(f'SELECT count(*) FROM {name}')} {name}"
                          for name in ["inventory_change", "inventory_snapshot", "inventory_current", "quarantine"])
        if arguments.former:
            print(f"former versions judged: {judge_former(judge, arguments.lake, arguments.former)}")
    except (LogError, duckdb.Error, OSError) as error:
        print(f"cannot tell: {error}")
        return 2
    for finding in judge.findings:
        print(f"DIFFERS: {finding}")
    print(f"{'equal' if not judge.findings else 'NOT equal'}: {sizes}; versions {versions}")
    return 1 if judge.findings else 0


if __name__ == "__main__":
    sys.exit(main())
