"""The benchmark runs; its results are not checked here."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "run.py"


def test_a_small_case_prints_its_table() -> None:
    process = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--only", "many projects"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    again = r"^many projects, round 1, ours: .* 0 rows, 92 requests "
    assert re.search(again, process.stderr, re.MULTILINE)  # 3 of each project, 2 others
    head, _, row, *_ = process.stdout.splitlines()
    assert head.startswith("| what | ours | other | ratio |")
    assert row.startswith("| 30 projects, nothing new, 8 workers: seconds beyond ")
