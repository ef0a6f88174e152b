"""The benchmark runs; what it measures is not judged here."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "run.py"


def test_the_smallest_case_prints_its_table() -> None:
    process = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--only", "nothing new"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    head, _, row, *_ = process.stdout.splitlines()
    assert head.startswith("| what | ours | other | ratio |")
    assert row.startswith("| nothing new, 8 lists: requests | 8 | 8 |")
