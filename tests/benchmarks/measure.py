"""One contestant is one process: how it is started, timed and asked for its report."""

import json
import os
import resource
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGE = HERE.parent.parent


@dataclass(frozen=True)
class Contestant:
    script: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 0
    """Rows it must load; otherwise the benchmark fails."""
    again: bool = False
    """A second run is measured; each starts with a copy of what the first left."""
    once: bool = False
    """Too slow for many rounds."""
    environment: Mapping[str, str] = field(default_factory=dict)
    first: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ in the first run."""
    python: str = sys.executable
    """The interpreter, which may be of another environment."""


@dataclass(frozen=True)
class Run:
    seconds: float
    """Wall clock, from the start of the process to its end."""
    cpu: float
    """CPU seconds of all cores, steadier than the wall clock on a busy machine."""
    rows: int
    requests: int
    phases: Mapping[str, float]
    memory: Mapping[str, float]
    """Peak memory in MB until the end of each phase."""


class Server:
    def __init__(self, process: "subprocess.Popen[str]", certificate: str) -> None:
        assert process.stdout
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{int(process.stdout.readline())}"
        self.environment: dict[str, str] = {}
        """Variables that make clients trust the certificate."""
        if certificate:
            path = os.pathsep.join([str(PACKAGE), str(Path(certificate).parent)])
            self.environment = {"REQUESTS_CA_BUNDLE": certificate, "PYTHONPATH": path}
        self._context = ssl.create_default_context(cafile=certificate or None)

    def ask(self, path: str) -> dict[str, int]:
        url = self.url + path
        with urllib.request.urlopen(url, timeout=60, context=self._context) as answer:
            report: dict[str, int] = json.load(answer)
        return report


@contextmanager
def serving(settings: Mapping[str, Any], tls: bool = False) -> Iterator[Server]:
    """`tls`: by https, with a certificate made for it."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = _certificate(Path(folder)) if tls else ""
        given = json.dumps({**settings, "certificate": certificate})
        command = [sys.executable, "-m", "tests.benchmarks.server", given]
        with subprocess.Popen(
            command,
            cwd=PACKAGE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield Server(process, certificate)
            finally:
                assert process.stdin
                process.stdin.close()


def _certificate(folder: Path) -> str:
    """A file with a key and a certificate for 127.0.0.1, signed by itself.

    Beside it is what makes Python trust it that finds no setting for it, as Airbyte's
    sources do not.
    """
    pem = folder / "server.pem"
    trust = f"import certifi\n\ncertifi.where = lambda: {str(pem)!r}\n"
    (folder / "sitecustomize.py").write_text(trust)
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    command = ["openssl", *words.split(), *name, *files]
    subprocess.run(command, check=True, capture_output=True)
    pem.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return str(pem)


def run(
    contestant: Contestant,
    server: Server,
    folder: Path,
    environment: Mapping[str, str],
    *,
    is_first: bool = False,
) -> Run:
    """Run a contestant in this folder, with what an earlier run left."""
    settings = {**contestant.settings, **(contestant.first if is_first else {})}
    settings["base_url"] = server.url
    script = HERE / f"{contestant.script}.py"
    server.ask("/stats")
    used, started = _cpu(), time.perf_counter()
    process = subprocess.run(
        [contestant.python, script, json.dumps(settings)],
        cwd=folder,
        env={
            **_environment(folder),
            **server.environment,
            **environment,
            **contestant.environment,
        },
        capture_output=True,
        check=False,
        text=True,
    )
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{contestant} failed:\n{process.stderr}")
    report = json.loads(process.stdout.splitlines()[-1])
    return Run(
        seconds,
        _cpu() - used,
        report["rows"],
        server.ask("/stats")["requests"],
        report.get("phases", {}),
        report.get("memory", {}),
    )


def _cpu() -> float:
    """Return the CPU seconds of finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _environment(folder: Path) -> dict[str, str]:
    """Return variables without the user's settings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DLT_DATA_DIR": str(folder / "dlt"),
        "PYTHONPATH": str(PACKAGE),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    }


def fresh(folder: Path, base: Path | None) -> Path:
    """Empty the folder or copy the base into it, and flush all writes."""
    shutil.rmtree(folder, ignore_errors=True)
    if base:
        shutil.copytree(base, folder)
    else:
        folder.mkdir(parents=True)
    os.sync()
    return folder


def median(runs: list[Run], metric: str) -> float:
    """Return the median of a field of `Run`, or of `seconds to …` or `MB until …`."""
    return statistics.median(_value(run, metric) for run in runs)


def _value(run: Run, metric: str) -> float:
    if metric == "per row":
        return run.seconds / run.rows * 1e6
    if " " not in metric:
        return float(getattr(run, metric))
    phase = metric.split()[-1]
    return (run.memory if metric.startswith("MB") else run.phases)[phase]
