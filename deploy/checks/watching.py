"""Dashboard and alerts: every metric is one that the sources have, the dashboard is whole. Writes the dashboard's expressions
as rules to the file that is named as argument, for promtool to parse."""

import json
import re
import sys

import yaml
from sources import ROOT, is_metric, metrics

NAME = re.compile(r"\bonhand_[a-z0-9_]+")
wrong = []
known = metrics()

dashboard = json.loads((ROOT / "deploy/grafana/onhand.json").read_text())
sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
variables = {v["name"]: v for v in dashboard["templating"]["list"]}
if variables["datasource"]["current"]["value"] not in [source["uid"] for source in sources]:
    wrong.append("the dashboard's data source is not the provisioned one")

expressions, ids, cells = [], set(), {}
for panel in dashboard["panels"]:
    title, at = panel["title"], panel["gridPos"]
    if panel["id"] in ids:
        wrong.append(f"panel {title}: its id is another panel's")
    ids.add(panel["id"])
    for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
        if cell in cells:
            wrong.append(f"panels {title} and {cells[cell]} lie over each other")
            break
        cells[cell] = title
    if panel["type"] != "row" and not panel.get("targets"):
        wrong.append(f"panel {title}: asks nothing")
    expressions += [(f"panel {title}", target["expr"]) for target in panel.get("targets", [])]
for where, expression in expressions:
    for variable in re.findall(r"\$(\w+)", expression):
        if variable != "__rate_interval" and variable not in variables:
            wrong.append(f"{where}: ${variable} is no variable of the dashboard")

alerts = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
tested = (ROOT / "deploy/prometheus/alerts_test.yaml").read_text()
rules = [rule for group in alerts["groups"] for rule in group["rules"]]
for rule in rules:
    expressions.append((f"alert {rule['alert']}", rule["expr"]))
    if f"alertname: {rule['alert']}\n" not in tested:
        wrong.append(f"alert {rule['alert']}: has no case in alerts_test.yaml")

texts = expressions + [(f"variable {name}", v["definition"]) for name, v in variables.items() if "definition" in v]
used = set()
for where, text in texts:
    for name in NAME.findall(text):
        used.add(name)
        if not is_metric(name, known):
            wrong.append(f"{where}: the sources have no metric {name}")

plain = [re.sub(r"\$\w+", ".*", e.replace("$__rate_interval", "5m")) for _, e in expressions]
parsed = {"groups": [{"name": "dashboard", "rules": [{"record": f"panel:{i}", "expr": e} for i, e in enumerate(plain)]}]}
with open(sys.argv[1], "w") as file:
    yaml.safe_dump(parsed, file)

print(f"{len(dashboard['panels'])} panels, {len(rules)} alerts, {len(used)} metrics")
print(*wrong, sep="\n")
sys.exit(bool(wrong))
