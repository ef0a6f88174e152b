"""The same load with dlt's own `rest_api_source`, given a paginator that works.

dlt has none for this Link header: its HeaderLinkPaginator never ends, because the last
page also has a link to a next one.
"""

import json
import sys
from typing import Any

import dlt
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api import rest_api_source
from dlt.sources.rest_api.typing import EndpointResource, RESTAPIConfig
from requests import Request, Response

CURSOR = {"events": "dateCreated", "issues": "lastSeen"}


class LinkCursorPaginator(BasePaginator):
    def __init__(self) -> None:
        super().__init__()
        self.cursor = ""

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        link: dict[str, str] = response.links.get("next", {})
        self._has_next_page = link.get("results") == "true"
        self.cursor = link.get("cursor", "")

    def update_request(self, request: Request) -> None:
        request.params = {**(request.params or {}), "cursor": self.cursor}


def endpoint(table: str, project: str) -> EndpointResource:
    return {
        "name": f"{table}_{project}",
        "table_name": table,
        "primary_key": "id",
        "write_disposition": "merge",
        "endpoint": {
            "path": f"projects/acme/{project}/{table}/",
            "data_selector": "data",
            "incremental": {
                "cursor_path": CURSOR[table],
                "initial_value": "1970-01-01T00:00:00Z",
            },
        },
    }


def main(
    base_url: str, projects: list[str], tables: list[str], tuned: bool
) -> dict[str, Any]:
    """`tuned`: what dlt's guides recommend for speed."""
    config: RESTAPIConfig = {
        "client": {
            "base_url": f"{base_url}/v1/",
            "auth": {"type": "bearer", "token": "token"},
            "paginator": LinkCursorPaginator(),
        },
        "resources": [
            endpoint(table, project) for table in tables for project in projects
        ],
    }
    source = rest_api_source(config)
    if tuned:
        source.max_table_nesting = 0
        source.parallelize()
    pipeline = dlt.pipeline(
        "peer",
        pipelines_dir="pipelines",
        destination=dlt.destinations.duckdb("warehouse.duckdb"),
        dataset_name="analytics",
    )
    if tuned:
        pipeline.run(source, loader_file_format="parquet")
    else:
        pipeline.run(source)
    trace = pipeline.last_trace
    assert trace
    phases = {
        step.step: (step.finished_at - step.started_at).total_seconds()
        for step in trace.steps
        if step.step != "run" and step.finished_at
    }
    info = trace.last_normalize_info
    counts = info.row_counts if info else {}
    return {"rows": sum(counts.get(table, 0) for table in tables), "phases": phases}


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
