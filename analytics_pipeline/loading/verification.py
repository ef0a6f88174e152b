"""The result of verify."""

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from analytics_pipeline.loading.summary import listed


@dataclass
class Counts:
    """Numbers of rows."""

    server: int = 0
    warehouse: int = 0
    missing: int = 0
    """On the server only."""
    doubled: int = 0
    """Rows in the warehouse beyond the first of a key."""
    different: int = 0
    """On both sides, with different values."""
    gone: int = 0
    """In the warehouse only; not counted as a difference."""

    @property
    def is_equal(self) -> bool:
        """No row is missing, doubled or different."""
        return not (self.missing or self.doubled or self.different)

    def add(self, other: "Counts") -> None:
        """Add the counts of another list."""
        for each in fields(self):
            total = getattr(self, each.name) + getattr(other, each.name)
            setattr(self, each.name, total)


class Example(NamedTuple):
    """A row that differs."""

    project: str
    key: str
    columns: tuple[str, ...] = ()
    """Columns that differ."""


@dataclass
class Verification:
    """How the warehouse compares with the server."""

    tables: dict[str, dict[str, Counts]] = field(default_factory=dict)
    """Table → project, or organization → counts."""
    examples: dict[str, dict[str, list[Example]]] = field(default_factory=dict)
    """Table → kind → the first rows of this kind."""
    skipped: dict[str, str] = field(default_factory=dict)
    """List → why the server refused it."""
    failed: dict[str, str] = field(default_factory=dict)
    """List → why it could not be read."""
    seconds: float = 0.0
    before: dict[str, Counts] | None = None
    """Table → counts before a repair; None: nothing had to be repaired."""

    @property
    def is_equal(self) -> bool:
        """All lists could be read, and the warehouse matches the server."""
        return not self.failed and not self.unequal

    @property
    def unequal(self) -> list[str]:
        """Tables in which a row is missing, doubled or different."""
        return [name for name, each in self.totals().items() if not each.is_equal]

    def totals(self) -> dict[str, Counts]:
        """Return the counts of each table."""
        totals = {table: Counts() for table in self.tables}
        for table, lists in self.tables.items():
            for counts in lists.values():
                totals[table].add(counts)
        return totals

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "tables": {table: vars(counts) for table, counts in self.totals().items()},
            "before_repair": self.before
            and {table: vars(counts) for table, counts in self.before.items()},
            "projects": {
                table: {project: vars(counts) for project, counts in lists.items()}
                for table, lists in self.tables.items()
            },
            "examples": {
                table: {
                    kind: [each._asdict() for each in rows]
                    for kind, rows in kinds.items()
                }
                for table, kinds in self.examples.items()
            },
            "skipped": listed(self.skipped),
            "failed": listed(self.failed),
            "seconds": round(self.seconds, 3),
        }
