"""A destination that cannot be used is reported before any request."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from analytics_pipeline.cli.main import main
from tests.conftest import TOKEN, small_server
from tests.postgres import Postgres

Output = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("destination", "said"),
    [
        (
            "mysql",
            "dlt has no destination 'mysql'; use the destination 'sqlal",
        ),
        ("postgre", "dlt has no destination 'postgre'; did you mean 'postgres'?"),
        ("mongo", "dlt has no destination 'mongo'; use one of postgres, snowflake, "),
        (
            "postgres",
            "destination 'postgres': database, password, username, host are missing; set"
            " DESTINATION__POSTGRES__CREDENTIALS__DATABASE and so on in the environment,"
            " or [destination.postgres.credentials] in .dlt/secrets.toml; or set"
            " DESTINATION__POSTGRES__CREDENTIALS=postgresql://user:password@host/database",
        ),
        (
            "filesystem",
            "destination 'filesystem': bucket_url is missing; set"
            " DESTINATION__FILESYSTEM__BUCKET_URL in the environment, or"
            " [destination.filesystem] in .dlt/secrets.toml",
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "verify", "status", "report"])
def test_a_destination_without_credentials_is_explained(
    command: str,
    destination: str,
    said: str,
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    with small_server() as server:
        words = [command, "--destination", destination]
        words += ["--pipelines-dir", str(elsewhere / "pipelines")]
        if command in ("run", "verify"):
            words += ["--base-url", server.url, "--organization", "acme"]
            words += ["--project", "frontend"]
        assert main(words) == 2
        assert not server.requests
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


def test_malformed_credentials_are_not_shown(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    for name, address in {
        "postgres": "postgres//ann:s3cret@db/errors",
        "sqlalchemy": "mysql+nosuch://ann:s3cret@db/errors",
    }.items():
        monkeypatch.setenv(f"DESTINATION__{name.upper()}__CREDENTIALS", address)
        folder = str(elsewhere / "pipelines")
        assert main(["status", "--destination", name, "--pipelines-dir", folder]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: destination '{name}': ")
        assert "s3cret" not in err


@pytest.fixture
def loader(postgres: Postgres) -> Iterator[str]:
    """A user of PostgreSQL who may not create schemas; the address to connect to."""
    postgres.query("create role loader login")
    yield postgres.uri.replace("postgres:unused@", "loader:unused@")
    postgres.query("drop owned by loader cascade")
    postgres.query("drop role loader")


def test_a_missing_permission_names_the_schemas_to_create(
    loader: str,
    postgres: Postgres,
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", loader)
    with small_server() as server:
        words = ["run", "--destination", "postgres", "--base-url", server.url]
        words += ["--organization", "acme", "--project", "frontend"]
        words += ["--resource", "issues", "--progress", "off"]
        words += ["--pipelines-dir", str(elsewhere / "pipelines")]
        for schema in ("analytics", "analytics_staging"):
            assert main(words) == 1
            said = "an administrator create the schemas analytics and analytics_staging"
            assert said in capsys.readouterr().err
            postgres.query(f"create schema {schema} authorization loader")
        assert main(words) == 0
        assert postgres.query("select count(*) from analytics.issues") == [(20,)]


def test_a_missing_driver_names_the_extra_to_install(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    for name in [name for name in sys.modules if "impl.postgres" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    address = "postgresql://ann:s3cret@127.0.0.1:9/errors"
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", address)
    folder = str(elsewhere / "pipelines")
    assert main(["status", "--destination", "postgres", "--pipelines-dir", folder]) == 2
    err = capsys.readouterr().err
    assert "destination 'postgres' needs the package psycopg2: pip install " in err
    assert "[postgres]" in err
    assert "s3cret" not in err


def test_changing_the_destination_causes_no_warning(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", str(elsewhere / "lake"))
    with small_server() as server:
        for destination in ("duckdb", "filesystem", "duckdb"):
            words = ["run", "--destination", destination, "--base-url", server.url]
            words += ["--organization", "acme", "--project", "frontend"]
            words += ["--pipelines-dir", str(elsewhere / "pipelines")]
            words += ["--resource", "projects"]
            assert main(words) == 0
    assert "differs" not in capsys.readouterr().err


READING = (["status", "--json"], ["check", "--freshness", "1h", "--json"], ["report"])


def assert_said(capsys: Output, words: list[str], said: str) -> None:
    """Check that the command fails with one sentence, which is also in its JSON."""
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert said in err
    assert err.count("\n") == 1
    assert (
        json.loads(out)["error"] == err.removeprefix("error: ").strip()
        if out
        else ("--json" not in words)
    )


@pytest.mark.parametrize("words", READING)
def test_a_locked_file_is_reported_with_the_process_that_holds_it(
    words: list[str], elsewhere: Path, capsys: Output
) -> None:
    file = elsewhere / "analytics_pipeline.duckdb"
    script = f"import duckdb; c = duckdb.connect({str(file)!r}); print(1); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as other:
        assert other.stdout
        assert other.stdout.readline()
        said = f"the file {file} is in use by process {other.pid} ("
        assert_said(capsys, words, said)


@pytest.mark.parametrize("words", READING)
def test_a_file_that_is_not_a_database_is_reported(
    words: list[str], elsewhere: Path, capsys: Output
) -> None:
    (elsewhere / "analytics_pipeline.duckdb").write_bytes(b"x" * 5000)
    assert_said(capsys, words, "the warehouse cannot be opened: IO Error: ")


@pytest.mark.parametrize("words", READING)
def test_a_database_server_that_is_down_is_reported_in_one_sentence(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    pytest.importorskip("psycopg2")
    command, *options = words
    words = [command, "--destination", "postgres", *options]
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        uri = f"postgresql://user:hidden@127.0.0.1:{deaf.getsockname()[1]}/errors"
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", uri)
        assert_said(capsys, words, "cannot be opened: connection to server")
