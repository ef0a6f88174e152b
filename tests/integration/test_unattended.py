"""Examples for schedulers that have no tests of their own."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import pytest
import yaml

from analytics_pipeline import runner
from analytics_pipeline.cli.arguments import parse
from tests.children import ROOT
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, set_back, small_server
from tests.examples import FOLDER, environment
from tests.fake_server import FakeServer
from tests.postgres import Postgres


def bash(script: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-ec", script],
        env={**os.environ, "PATH": path, "PYTHONPATH": ROOT, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def settings(folder: Path, server: FakeServer) -> None:
    """`.dlt/` as a user writes it."""
    (folder / ".dlt").mkdir()
    (folder / ".dlt/secrets.toml").write_text(f'auth_token = "{TOKEN}"\n')
    (folder / ".dlt/config.toml").write_text(
        f'[sources.analytics_pipeline]\nbase_url = "{server.url}"\n'
        f'organization = "{ORGANIZATION}"\nproject = ["frontend", "backend"]\n'
    )


@pytest.mark.skipif(not shutil.which("flock"), reason="flock is of Linux")
def test_the_documented_cron_lines_work(elsewhere: Path, warehouse: Warehouse) -> None:
    lines = [
        re.split(r"\s+", line, maxsplit=5)[5].replace("/srv/errors", str(elsewhere))
        for line in (FOLDER / "crontab").read_text().splitlines()
        if line[:1].isdigit()
    ]
    load, report, check = lines
    (elsewhere / "venv/bin").mkdir(parents=True)
    python = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n'
    (elsewhere / "venv/bin/python").write_text(python)
    (elsewhere / "venv/bin/python").chmod(0o755)
    with small_server() as server:
        settings(elsewhere, server)
        assert bash(load).returncode == 0, (elsewhere / "run.log").read_text()
        assert len(warehouse.ids("events")) == len(server.rows("events"))
        with subprocess.Popen(["flock", "-F", ".lock", "sleep", "60"]) as other:
            asked = len(server.requests)
            while bash("flock -n .lock true").returncode == 0:
                pass
            assert (bash(load).returncode, bash(load).stdout) == (0, "")
            assert len(server.requests) == asked
            other.kill()
        server.fail(403, on="/releases/", times=100)
        assert bash(load).stdout == ""
        server.mend()
        server.fail(401, times=100)
        mail = bash(load).stdout
        assert re.search(
            r"^20\d\d-.{14} error: .*rejected the token", mail, re.MULTILINE
        )
    for command in (report, check):
        done = bash(command)
        assert done.returncode == 0
        assert done.stdout == ""  # no mail
    assert (elsewhere / "analytics_report.html").exists()
    assert "new rows with" in (elsewhere / "run.log").read_text()
    warehouse.rows("update analytics.events set date_created = '2026-01-01'")
    assert bash(check).stdout == ""  # no alarm without new errors
    set_back(runner.make_pipeline(), "", "asked_at", "completed_at")
    done = bash(check)
    assert "✗ events: newest row" in done.stdout
    assert "; frontend not read: last " in done.stdout


def steps() -> dict[str, Any]:
    workflow = yaml.safe_load((FOLDER / "github_actions.yml").read_text())
    return {
        step.get("name", step.get("uses")): step
        for step in workflow["jobs"]["load"]["steps"]
    }


def test_the_documented_github_workflow_works(
    postgres: Postgres, elsewhere: Path
) -> None:
    load, fresh = steps()["Load new data"], steps()["Check that events were read"]
    now = datetime.now(UTC)
    with small_server("sentry", now=now - timedelta(hours=2)) as server:
        variables = environment(server) | {
            "DESTINATION__POSTGRES__CREDENTIALS": postgres.uri
        }
        server.fail(403, on="/releases/")
        done = bash(load["run"], **variables)
        assert done.returncode == 0, done.stderr
        assert "::warning::Some lists were refused" in done.stdout
        assert (elsewhere / "summary.json").read_text() in done.stdout
        assert bash(fresh["run"], **variables).returncode == 0
    there = dlt.destinations.postgres(postgres.uri)
    set_back(runner.make_pipeline(there), "/frontend", "asked_at", "completed_at")
    set_back(runner.make_pipeline(there), "/backend", "asked_at", "completed_at")
    assert bash(fresh["run"], **variables).returncode == 1
    done = bash(load["run"], **variables | {"AUTH_TOKEN": ""})
    assert done.returncode == 2


def test_the_image_installs_the_repository() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (.*) /source/.*$", text, re.MULTILINE)
    for name in shlex.split(" ".join(copied)):
        assert Path(ROOT, name).exists()
    assert 'pip install --no-cache-dir "/source[postgres]"' in text


def test_the_example_of_the_image_runs() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    (words,) = re.findall(r"analytics-pipeline \\\n# +(.*)", text)
    options = parse(shlex.split(words))
    assert options.command == "run"
    assert options.all_projects
    assert 'ENTRYPOINT ["python", "-m", "analytics_pipeline"]' in text
    (default,) = re.findall(r"^CMD (.*)", text, re.MULTILINE)
    assert parse(yaml.safe_load(default)).command == "run"
