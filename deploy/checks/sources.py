"""What the sources say: names of metrics and settings, read from the text of the Rust files."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What the exposition format appends to the name that a metric is registered with: kind or part of a histogram, before it the
# unit.
KINDS = ("_total", "_info", "_bucket", "_sum", "_count", "")
UNITS = ("_seconds", "_bytes", "")


def _text(folder, stem):
    files = [*(ROOT / folder / "src").glob(f"{stem}.rs"), *(ROOT / folder / "src" / stem).glob("*.rs")]
    assert files, f"{folder}/src has no {stem}"
    return "\n".join(file.read_text() for file in files)


def metrics():
    """Names of all metrics without what the exposition format appends."""
    names = {f"onhand_{of}_{name}" for of in ("hub", "agent")
             for name in re.findall(r'"([a-z][a-z0-9_]*)"', _text(of, "metrics"))}
    counters = (ROOT / "hub/src/gateway/stats.rs").read_text().split("counters! {", 1)[1].split("\n}", 1)[0]
    names |= {f"onhand_hub_gateway_{name}" for name in re.findall(r"^    ([a-z_]+),$", counters, re.M)}
    assert len(names) > 60, "the sources are written otherwise than this script expects"
    return names


def is_metric(name, names):
    """Whether the sources have a metric that is exposed under this name."""
    endings = [unit + kind for unit in UNITS for kind in KINDS]
    return any(name.endswith(ending) and name.removesuffix(ending) in names for ending in endings)


def hub_settings():
    """Settings of `onhand-hub run`, as the file has them."""
    given = _text("hub", "config").split("\ngiven! {", 1)[1].split("\n}", 1)[0]
    names = set(re.findall(r"^    ([a-z_]+),$", given, re.M)) | set(re.findall(r"pub (kafka_[a-z_]+):", _text("hub", "config")))
    assert {"lake", "http", "kafka_set"} <= names, "hub/src/config is written otherwise than this script expects"
    return names


def tested_versions():
    """Versions of the programs that the tests run with, and that are also images of compose.yaml."""
    kafka = re.search(r"<kafka.version>(.*)</kafka.version>", (ROOT / "tests/kafka/pom.xml").read_text())[1]
    azurite = json.loads((ROOT / "tests/azurite/package.json").read_text())["dependencies"]["azurite"]
    return {"kafka": kafka, "azurite": azurite}


def agent_settings():
    """Settings of `onhand-agent run`."""
    names = set(re.findall(r"^    ([a-z_]+): Option<Text>,$", _text("agent", "config"), re.M))
    assert {"agent_id", "hub"} <= names, "agent/src/config.rs is written otherwise than this script expects"
    return names


def wrong_variables(names):
    """Environment variables that are named like settings and are none."""
    hub, agent = hub_settings() | {"config"}, agent_settings() | {"config"}
    of = {"ONHAND_HUB_": hub, "ONHAND_AGENT_": agent}
    return [name for name in names for prefix, known in of.items()
            if name.startswith(prefix) and name.removeprefix(prefix).lower() not in known]
