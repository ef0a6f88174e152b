"""The columns of the five tables: one declaration, as Arrow and as dlt want it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self, cast

import pyarrow as pa
from dlt.common.data_types import TDataType
from dlt.common.normalizers.naming.snake_case import NamingConvention
from dlt.common.schema.typing import (
    C_DLT_LOAD_ID,
    TColumnSchema,
    TReferenceCardinality,
    TTableReference,
)

from analytics_pipeline.tables import descriptions

ARROW = {
    "text": pa.string(),
    "timestamp": pa.timestamp("us", "UTC"),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "json": pa.string(),
}
"""Column type, in dlt's words → Arrow type."""
EXTRA = "extra"
"""JSON column of the fields and values that no column takes."""
READ_AT = "read_at"
"""When the answer that holds the row was received. Of two copies the later one stays."""
PROJECT_SLUG = "project_slug"
"""Slug of the project that the row was read from, as it was asked for."""
GONE_AT = "gone_at"
"""dlt's column alone: rows come without it, so that one that is read again loses it."""
MAY_GO = ("issues", "projects", "project_detail")
"""Tables with this column: complete readings tell what the server does not list any more."""
LOAD_ID = C_DLT_LOAD_ID
"""dlt's column of the load that brought the row."""
LOAD_ID_COLUMN: TColumnSchema = {
    "name": LOAD_ID,
    "data_type": "text",
    "nullable": True,  # in tables that have rows already
    "description": descriptions.LOAD_ID,
}
_GONE_AT: TColumnSchema = {
    "name": GONE_AT,
    "data_type": "timestamp",
    "nullable": True,
    "description": descriptions.GONE_AT,
}
_NAMING = NamingConvention()


@dataclass(frozen=True)
class Table:
    """The fields of a table under their API names, by column type; and its key."""

    name: str
    key: tuple[str, ...] = ("id",)
    text: str = ""
    timestamp: str = ""
    bigint: str = ""
    double: str = ""
    bool: str = ""
    json: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """API field → the field whose column it shares."""
    volatile: str = ""
    """Fields that change with the hour at which they are asked for, and nothing else."""
    references: tuple[TTableReference, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    """Field that a user has asked for → tag whose value it has."""
    excluded: frozenset[str] = frozenset()
    """Fields that a user has left out: they are in no column, not even in `extra`."""

    def with_tags(self, tags: Mapping[str, str]) -> Self:
        """Return the table with text columns for further tags: column name → tag."""
        return replace(self, text=" ".join([self.text, *tags]), tags=tags)

    def without(self, fields: Iterable[str]) -> Self:
        """Return the table without some of its fields."""
        return replace(self, excluded=frozenset(fields))

    @cached_property
    def types(self) -> dict[str, str]:
        """API field → column type, the key first."""
        kinds = {field: kind for kind in ARROW for field in getattr(self, kind).split()}
        fields = [*self.key, *kinds]
        return {name: kinds[name] for name in fields if name not in self.excluded}

    @cached_property
    def names(self) -> dict[str, str]:
        """API field → column name."""
        return {field: column_name(field) for field in self.types}

    @cached_property
    def texts(self) -> pa.StructType:
        """The fields of text, under their API names."""
        return pa.struct(
            [(name, ARROW[kind]) for name, kind in self.types.items() if kind == "text"]
        )

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns for Arrow."""
        fields = [
            pa.field(self.names[field], ARROW[kind], nullable=field not in self.key)
            for field, kind in self.types.items()
        ]
        fields += [
            pa.field(EXTRA, ARROW["json"]),
            pa.field(READ_AT, ARROW["timestamp"]),
        ]
        return pa.schema(fields)

    @cached_property
    def columns(self) -> dict[str, TColumnSchema]:
        """The columns for dlt."""
        kinds = {self.names[field]: kind for field, kind in self.types.items()}
        columns: dict[str, TColumnSchema] = {
            name: {
                "name": name,
                "data_type": cast(TDataType, kind),
                "nullable": name not in self.primary_key,
            }
            for name, kind in {**kinds, EXTRA: "json", READ_AT: "timestamp"}.items()
        }
        columns[READ_AT]["dedup_sort"] = "desc"
        for name, text in self.descriptions.items():
            columns[name]["description"] = text
        return columns

    @property
    def hints(self) -> dict[str, Any]:
        """What dlt is to know of the table."""
        gone = {GONE_AT: _GONE_AT} if self.name in MAY_GO else {}
        return {
            "columns": {**self.columns, **gone, LOAD_ID: LOAD_ID_COLUMN},
            "references": self.references,
            "additional_table_hints": {"description": descriptions.TABLES[self.name]},
        }

    @cached_property
    def descriptions(self) -> dict[str, str]:
        """Column name → what it holds."""
        own = {EXTRA: descriptions.EXTRA, READ_AT: descriptions.READ_AT}
        texts = descriptions.COLUMNS[self.name]
        tags = {name: descriptions.TAG.format(tag) for name, tag in self.tags.items()}
        return {self.names[n]: (texts | tags)[n] for n in self.types} | own

    @cached_property
    def primary_key(self) -> list[str]:
        """The key's columns."""
        return [self.names[field] for field in self.key]


def column_name(field: str) -> str:
    """Return the column of an API field, by dlt's naming convention."""
    return _NAMING.normalize_identifier(field)


def reference(
    column: str,
    table: str,
    cardinality: TReferenceCardinality = "many_to_one",
) -> TTableReference:
    """Return that a column holds the id of a row of another table."""
    return {
        "columns": [column],
        "referenced_table": table,
        "referenced_columns": ["id"],
        "cardinality": cardinality,
    }


_PROJECT_FLAGS = """
    isBookmarked isMember firstTransactionEvent hasAccess hasFeedbacks hasFlags
    hasMinifiedStackTrace hasMonitors hasNewFeedbacks hasProfiles hasReplays
    hasSessions hasInsightsHttp hasInsightsDb hasInsightsAssets hasInsightsAppStart
    hasInsightsScreenLoad hasInsightsVitals hasInsightsCaches hasInsightsQueues
    hasInsightsAgentMonitoring hasInsightsMCP hasLogs hasTraceMetrics hasUserReports
"""
_PROJECT_NESTED = """
    stats transactionStats sessionStats features access team teams platforms
    latestRelease options
"""
_PROJECT_FIGURES = "stats transactionStats sessionStats"

TABLES = {
    table.name: table
    for table in (
        Table(
            "events",
            # An event id is unique within its project only.
            key=("projectID", "id"),
            text="""
                id projectID eventID groupID type title message culprit location platform
                crashFile dist level environment release_version user_id url server_name
                project_slug
            """,
            timestamp="dateCreated dateReceived",
            bigint="size",
            double="startTimestamp endTimestamp",
            bool="handled",
            json="""
                user tags metadata entries contexts context sdk packages errors
                release fingerprints occurrence measurements breakdowns groupingConfig
                _meta
            """,
            # Summaries have the one, whole events the other.
            aliases={"event.type": "type"},
            references=(
                reference("group_id", "issues"),
                reference("project_id", "projects"),
            ),
        ),
        Table(
            "issues",
            text="""
                id project_id shortId title culprit type level status substatus priority platform
                logger permalink shareId issueType issueCategory matchingEventId
                matchingEventEnvironment project_slug
            """,
            timestamp="""
                firstSeen lastSeen priorityLockedAt seerAutofixLastTriggered
                seerExplorerAutofixLastTriggered
            """,
            bigint="count userCount numComments sessionCount",
            double="seerFixabilityScore",
            bool="""
                hasSeen isBookmarked isPublic isSubscribed isUnhandled
                latestEventHasAttachments
            """,
            json="""
                project metadata assignedTo annotations statusDetails
                subscriptionDetails stats derivedData lifetime filtered inbox owners
                integrationIssues sentryAppIssues last_90_days
            """,
            volatile="stats last_90_days",
            references=(reference("project_id", "projects"),),
        ),
        Table(
            "projects",
            text="id slug name platform",
            timestamp="dateCreated firstEvent",
            bigint="eventThrottleRate",
            bool=_PROJECT_FLAGS + "scrubIPAddresses",
            json=_PROJECT_NESTED + "latestDeploys environments",
            volatile=_PROJECT_FIGURES,
        ),
        Table(
            "releases",
            text="id version shortVersion ref url userAgent status",
            timestamp="dateCreated dateReleased dateStarted firstEvent lastEvent",
            bigint="newGroups commitCount deployCount",
            json="""
                projects authors owner lastCommit lastDeploy versionInfo data
                currentProjectMeta adoptionStages
            """,
            # The column holds a list of them.
            references=(reference("projects", "projects", "many_to_many"),),
        ),
        Table(
            "project_detail",
            text="""
                id slug name platform color status subjectPrefix subjectTemplate
                securityToken securityTokenHeader groupingConfig
                derivedGroupingEnhancements groupingEnhancements
                secondaryGroupingConfig fingerprintingRules defaultEnvironment
                relayPiiConfig symbolSources autofixAutomationTuning debugFilesRole
                project_slug
            """,
            timestamp="dateCreated firstEvent",
            bigint="""
                digestsMinDelay digestsMaxDelay resolveAge storeCrashReports
                secondaryGroupingExpiry processingIssues eventThrottleRate
            """,
            bool=_PROJECT_FLAGS
            + """
                isInternal isPublic dataScrubber dataScrubberDefaults verifySSL scrubIPAddresses
                scrapeJavaScript enableAutoReleaseCreation isDynamicallySampled
                tempestFetchScreenshots seerScannerAutomation scmSourceContextEnabled
            """,
            json=_PROJECT_NESTED
            + """
                avatar organization allowedDomains safeFields sensitiveFields highlightTags
                highlightContext highlightPreset builtinSymbolSources
                dynamicSamplingBiases seerNightshiftTweaks
            """,
            volatile=_PROJECT_FIGURES,
            references=(reference("id", "projects", "one_to_one"),),
        ),
    )
}
