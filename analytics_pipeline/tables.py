"""The columns of the five tables, and a batch of records as one Arrow table."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import pyarrow as pa
from dlt.common.data_types import TDataType
from dlt.common.normalizers.naming.snake_case import NamingConvention
from dlt.common.schema.typing import TColumnSchema

from analytics_pipeline.columns import ARROW, column
from analytics_pipeline.errors import MissingField, describe

Record = dict[str, Any]
NAMES = NamingConvention()
EXTRA = "extra"


@dataclass(frozen=True)
class Table:
    """Fields of a table under their API names, by column type, and its key."""

    name: str
    key: tuple[str, ...] = ("id",)
    text: str = ""
    timestamp: str = ""
    bigint: str = ""
    double: str = ""
    bool: str = ""
    json: str = ""

    @cached_property
    def types(self) -> dict[str, str]:
        """API field → column type, the key first."""
        kinds = {field: kind for kind in ARROW for field in getattr(self, kind).split()}
        return {field: kinds[field] for field in [*self.key, *kinds]}

    @cached_property
    def names(self) -> dict[str, str]:
        """API field → column name, by dlt's naming convention."""
        return {field: column_name(field) for field in self.types}

    @cached_property
    def schema(self) -> pa.Schema:
        fields = [
            pa.field(self.names[field], ARROW[kind], nullable=field not in self.key)
            for field, kind in self.types.items()
        ]
        return pa.schema([*fields, pa.field(EXTRA, ARROW["json"])])

    @cached_property
    def columns(self) -> dict[str, TColumnSchema]:
        """The same schema for dlt."""
        kinds = {self.names[field]: kind for field, kind in self.types.items()}
        return {
            name: {
                "name": name,
                "data_type": cast(TDataType, kind),
                "nullable": name not in self.primary_key,
            }
            for name, kind in {**kinds, EXTRA: "json"}.items()
        }

    @cached_property
    def primary_key(self) -> list[str]:
        return [self.names[field] for field in self.key]

    def arrow(self, records: Sequence[Record]) -> tuple[pa.Table, int]:
        """One Arrow table of `schema`, and how many values did not fit their column.

        A value that does not fit, and a field that no column is declared for, go
        into the JSON column `extra` under their names.

        Raises:
            MissingField: a field of the key is missing, or does not fit its column.
        """
        fields = set().union(*records)
        unknown = fields - self.types.keys()
        extra: list[Record | None] = [
            {name: value for name, value in record.items() if name in unknown} or None
            for record in (records if unknown else [{}] * len(records))
        ]
        misfits = 0
        arrays = []
        for field, kind in self.types.items():
            if field not in fields and field not in self.key:
                arrays.append(pa.nulls(len(records), ARROW[kind]))
                continue
            values = [record.get(field) for record in records]
            array, places = column(kind, values)
            if field in self.key and array.null_count:
                row = array.is_null().index(True).as_py()
                raise MissingField(
                    f"{self.name}: row {row + 1} of {len(records)} has no usable"
                    f" {field!r} ({describe(values[row])}): {describe(records[row])}"
                )
            arrays.append(array)
            misfits += len(places)
            for row in places:
                extra[row] = {**(extra[row] or {}), field: values[row]}
        arrays.append(column("json", extra)[0])
        return pa.Table.from_arrays(arrays, schema=self.schema), misfits


def column_name(field: str) -> str:
    return NAMES.normalize_identifier(field)


_PROJECT_FLAGS = """
    isBookmarked isMember firstTransactionEvent hasAccess hasFeedbacks hasFlags
    hasMinifiedStackTrace hasMonitors hasNewFeedbacks hasProfiles hasReplays
    hasSessions hasInsightsHttp hasInsightsDb hasInsightsAssets hasInsightsAppStart
    hasInsightsScreenLoad hasInsightsVitals hasInsightsCaches hasInsightsQueues
    hasInsightsAgentMonitoring hasInsightsMCP hasLogs hasTraceMetrics isInternal
    isPublic hasUserReports
"""
_PROJECT_NESTED = """
    stats transactionStats sessionStats features access team teams platforms
    latestRelease options avatar organization
"""

TABLES = {
    table.name: table
    for table in (
        Table(
            "events",
            # An event id is unique within its project only.
            key=("projectID", "id"),
            text="""
                id projectID eventID groupID event.type type title message culprit
                location platform crashFile dist
            """,
            timestamp="dateCreated dateReceived",
            bigint="size",
            json="""
                user tags metadata entries contexts context sdk packages errors
                release fingerprints occurrence
            """,
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
                integrationIssues sentryAppIssues
            """,
        ),
        Table(
            "projects",
            text="id slug name platform color",
            timestamp="dateCreated firstEvent",
            bool=_PROJECT_FLAGS,
            json=_PROJECT_NESTED + "latestDeploys environments",
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
                dataScrubber dataScrubberDefaults verifySSL scrubIPAddresses
                scrapeJavaScript enableAutoReleaseCreation isDynamicallySampled
                tempestFetchScreenshots seerScannerAutomation scmSourceContextEnabled
            """,
            json=_PROJECT_NESTED
            + """
                allowedDomains safeFields sensitiveFields highlightTags
                highlightContext highlightPreset builtinSymbolSources
                dynamicSamplingBiases seerNightshiftTweaks
            """,
        ),
    )
}
