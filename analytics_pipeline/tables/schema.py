"""The columns of the five tables: one declaration, as Arrow and as dlt want it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import pyarrow as pa
from dlt.common.data_types import TDataType
from dlt.common.normalizers.naming.snake_case import NamingConvention
from dlt.common.schema.typing import TColumnSchema

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
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """API field → what its column holds, where the name does not tell."""

    @cached_property
    def types(self) -> dict[str, str]:
        """API field → column type, the key first."""
        kinds = {field: kind for kind in ARROW for field in getattr(self, kind).split()}
        return {field: kinds[field] for field in [*self.key, *kinds]}

    @cached_property
    def names(self) -> dict[str, str]:
        """API field → column name."""
        return {field: column_name(field) for field in self.types}

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
            columns[self.names[name]]["description"] = text
        return columns

    @cached_property
    def primary_key(self) -> list[str]:
        """The key's columns."""
        return [self.names[field] for field in self.key]


def column_name(field: str) -> str:
    """Return the column of an API field, by dlt's naming convention."""
    return _NAMING.normalize_identifier(field)


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
                crashFile dist
            """,
            timestamp="dateCreated dateReceived",
            bigint="size",
            double="startTimestamp endTimestamp",
            json="""
                user tags metadata entries contexts context sdk packages errors
                release fingerprints occurrence measurements breakdowns groupingConfig
                _meta
            """,
            # Summaries have the one, whole events the other.
            aliases={"event.type": "type"},
        ),
        Table(
            "issues",
            text="""
                id shortId title culprit type level status substatus priority platform
                logger permalink shareId issueType issueCategory matchingEventId
                matchingEventEnvironment
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
            descriptions={
                "count": "Events of all time, on every server.",
                "userCount": "Users of all time, on every server.",
                "firstSeen": "Time of the first event of all.",
                "lastSeen": "Time of the last event of all.",
                "last_90_days": "Sentry: the same four figures of the last 90 days alone.",
                "lifetime": "Sentry: the figures of all time, as they were sent.",
            },
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
        ),
        Table(
            "project_detail",
            text="""
                id slug name platform color status subjectPrefix subjectTemplate
                securityToken securityTokenHeader groupingConfig
                derivedGroupingEnhancements groupingEnhancements
                secondaryGroupingConfig fingerprintingRules defaultEnvironment
                relayPiiConfig symbolSources autofixAutomationTuning debugFilesRole
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
        ),
    )
}
