"""Runs the README's Python examples as they stand, in a folder that has `onhand-data/lake`. (Spark's needs more than a test has.)"""

import re
import sys
from pathlib import Path

readme = Path(__file__).resolve().parents[2] / "README.md"
examples = [block for block in re.findall(r"```python\n(.*?)```", readme.read_text(), re.S) if "spark" not in block]
print(f"{len(examples)} examples")
for example in examples:
    exec(compile(example, str(readme), "exec"), {})
sys.exit(0 if examples else 1)
