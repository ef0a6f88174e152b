"""The columns of all tables, each in one line: API field, type, description.

Types are dlt's. The name of a column is that of its field by dlt's naming convention:
`groupID` → `group_id`.
"""

from analytics_pipeline.tables.schema import Table, reference

_SLUG = """
project_slug         text       Slug of the project when the row was read.
"""

_PROJECT = """
id                          text       Id of the project, as in the column project_id of other tables.
slug                        text       Short name of the project, used in URLs.
name                        text       Display name of the project.
platform                    text       Platform chosen for the project, such as python-django.
dateCreated                 timestamp  When the project was created.
firstEvent                  timestamp  When the first event was received.
eventThrottleRate           bigint     Percentage of events that GlitchTip discards.
isBookmarked                bool       Whether the token's user has bookmarked the project.
isMember                    bool       Whether the token's user belongs to one of the project's teams.
firstTransactionEvent       bool       Whether the project has ever received a transaction.
hasAccess                   bool       Whether the token's user has access to the project.
hasFeedbacks                bool       Whether the project has received user feedback.
hasFlags                    bool       Whether the project has received feature flags.
hasMinifiedStackTrace       bool       Whether the project has received stack traces of minified code.
hasMonitors                 bool       Whether the project has cron monitors.
hasNewFeedbacks             bool       Whether the project has received feedback from the feedback widget.
hasProfiles                 bool       Whether the project has received profiles.
hasReplays                  bool       Whether the project has received session replays.
hasSessions                 bool       Whether the project has received sessions, the source of release health.
hasInsightsHttp             bool       Whether there is data for insights into HTTP requests.
hasInsightsDb               bool       Whether there is data for insights into database queries.
hasInsightsAssets           bool       Whether there is data for insights into assets.
hasInsightsAppStart         bool       Whether there is data for insights into app starts.
hasInsightsScreenLoad       bool       Whether there is data for insights into screen loads.
hasInsightsVitals           bool       Whether there is data for insights into web vitals.
hasInsightsCaches           bool       Whether there is data for insights into caches.
hasInsightsQueues           bool       Whether there is data for insights into queues.
hasInsightsAgentMonitoring  bool       Whether there is data for insights into AI agents.
hasInsightsMCP              bool       Whether there is data for insights into MCP servers.
hasLogs                     bool       Whether the project has received logs.
hasTraceMetrics             bool       Whether the project has received trace metrics.
hasUserReports              bool       Whether the project has received user reports.
scrubIPAddresses            bool       Whether IP addresses are removed from events.
stats                       json       Recent event counts: pairs of time and count.
transactionStats            json       Recent transaction counts: pairs of time and count.
sessionStats                json       Recent session statistics.
features                    json       Names of the enabled features.
access                      json       Scopes that the token's user has in the project.
team                        json       First team of the project.
teams                       json       All teams of the project.
platforms                   json       Platforms of the events received.
latestRelease               json       Newest release of the project.
options                     json       Options by their internal names; secrets are masked.
"""
_RECENT_COUNTS = "stats transactionStats sessionStats"

_EVENTS = Table(
    "events",
    "Error events: one row for each event that a project received.",
    """
projectID            text       Project that received the event: projects.id.
id                   text       Id of the event, unique within its project.
eventID              text       Id that the client gave the event.
groupID              text       Issue that the event belongs to: issues.id.
type                 text       Kind of event, such as error, csp or default.
title                text       Title, made from the type and value of the error.
message              text       Logged message, or the text used for searching.
culprit              text       Function or page where the error happened.
location             text       File where the error happened.
platform             text       Platform of the client, such as python or javascript.
crashFile            text       Minidump or crash report sent with the event.
dist                 text       Distribution: one of several builds of a release.
level                text       Severity: fatal, error, warning, info or debug (tag level).
environment          text       Environment, such as production (tag environment).
release_version      text       Release in which the error happened: releases.version (tag release).
user_id              text       Id of the affected user (user.id).
url                  text       URL of the page or request (tag url, or the request).
server_name          text       Host on which the error happened (tag server_name).
dateCreated          timestamp  When the event happened, by the client's clock.
dateReceived         timestamp  When the server received the event.
size                 bigint     Size of the stored event in bytes.
startTimestamp       double     Start of a transaction, Unix time.
endTimestamp         double     End of a transaction, Unix time.
handled              bool       Whether the program caught the error (tag handled, or the stack trace).
user                 json       Affected user: id, email, username, ip_address.
tags                 json       All tags: a list of keys and values.
metadata             json       Source of the title: type, value, filename, function.
entries              json       Stack traces, request, breadcrumbs and messages.
contexts             json       Contexts by name: browser, os, device, runtime, trace.
context              json       Additional data sent by the program.
sdk                  json       Name and version of the client library.
packages             json       Installed packages and their versions.
errors               json       Problems that the server had in processing the event.
release              json       Release as sent by the server: an object, or its version.
fingerprints         json       Hashes by which the event was grouped into its issue.
occurrence           json       Details of an issue that is not an error, such as a slow query.
measurements         json       Measured values, such as web vitals.
breakdowns           json       Time spent in parts of a transaction.
groupingConfig       json       Settings by which the event was grouped into its issue.
_meta                json       What was truncated or scrubbed in the other fields.
"""
    + _SLUG,
    key=("projectID", "id"),  # an event id is unique within its project only
    aliases={"event.type": "type"},  # summaries have the one, whole events the other
    references=(
        reference("group_id", "issues"),
        reference("project_id", "projects"),
    ),
)

_ISSUES = Table(
    "issues",
    "Issues: groups of similar events, in their current state.",
    """
id                   text       Id of the issue.
project_id           text       Project of the issue: projects.id (project.id).
shortId              text       Readable id, such as FRONTEND-1A.
title                text       Title of the issue.
culprit              text       Function or page where the error happens.
type                 text       Kind of its events, such as error or default.
level                text       Severity: fatal, error, warning, info or debug.
status               text       Status: unresolved, resolved, ignored and others.
substatus            text       Detail of the status, such as new, ongoing, escalating or regressed.
priority             text       Priority: low, medium or high.
platform             text       Platform of its events, such as python.
logger               text       Logger that reported the error.
permalink            text       URL of the issue's page on the server.
shareId              text       Id of the public page, if the issue was shared.
issueType            text       Type of problem, such as error or performance_slow_db_query.
issueCategory        text       Category of problem, such as error or performance.
matchingEventId      text       Event that matched the query.
matchingEventEnvironment         text       Environment of the event that matched the query.
firstSeen            timestamp  Time of the first event ever.
lastSeen             timestamp  Time of the last event.
priorityLockedAt     timestamp  When a user set the priority manually.
seerAutofixLastTriggered         timestamp  When Seer last looked for a fix.
seerExplorerAutofixLastTriggered timestamp  When Seer Explorer last looked for a fix.
count                bigint     Number of events ever, on every server.
userCount            bigint     Number of users ever; NULL on GlitchTip, which does not count users.
numComments          bigint     Number of comments.
sessionCount         bigint     Number of sessions that the issue ended.
seerFixabilityScore  double     Seer's estimate of how easy a fix is, from 0 to 1.
hasSeen              bool       Whether the token's user has viewed the issue.
isBookmarked         bool       Whether the token's user has bookmarked the issue.
isPublic             bool       Whether the issue has a public page.
isSubscribed         bool       Whether the token's user is notified about the issue.
isUnhandled          bool       Whether the newest event was not caught by the program.
latestEventHasAttachments        bool       Whether the newest event has attachments.
project              json       Project of the issue: id, slug, name, platform.
metadata             json       Source of the title: type, value, filename, function.
assignedTo           json       User or team that the issue is assigned to.
annotations          json       Links to issues in other trackers.
statusDetails        json       Release in which it was resolved, or until when it is ignored.
subscriptionDetails  json       Why the token's user is notified about the issue.
stats                json       Recent event counts: pairs of time and count; NULL on GlitchTip.
derivedData          json       Data that the server derived from the events.
lifetime             json       Sentry's figures of all time, as sent.
filtered             json       Sentry's figures of the events that matched the query.
inbox                json       Why the issue is waiting for review.
owners               json       Users and teams that probably own the code.
integrationIssues    json       Linked issues of integrations.
sentryAppIssues      json       Linked issues of Sentry apps.
last_90_days         json       Sentry's figures of the last 90 days: count, users, first and last seen.
"""
    + _SLUG,
    volatile="stats last_90_days",
    references=(reference("project_id", "projects"),),
    has_gone_at=True,
)

_PROJECTS = Table(
    "projects",
    "Projects of the organization that the token can access.",
    _PROJECT
    + """
latestDeploys        json       Newest deploy to each environment.
environments         json       Names of the environments of its events.
""",
    volatile=_RECENT_COUNTS,
    has_gone_at=True,
    has_credentials=True,
)

_RELEASES = Table(
    "releases",
    "Releases: versions of the software.",
    """
id                   text       Id of the release; on GlitchTip, which has none, the version.
version              text       Version as sent by clients, as in events.release_version.
shortVersion         text       Version for display.
ref                  text       Reference into version control, such as a commit.
url                  text       URL of the release elsewhere.
userAgent            text       Program that created the release.
status               text       Status: open or archived.
dateCreated          timestamp  When the release was created on the server.
dateReleased         timestamp  When the software was released, if that was reported.
dateStarted          timestamp  When work on the release began, if that was reported.
firstEvent           timestamp  When its first event was received.
lastEvent            timestamp  When its newest event was received.
newGroups            bigint     Number of issues first seen in the release.
commitCount          bigint     Number of commits since the previous release.
deployCount          bigint     Number of deploys.
projects             json       Projects of the release: id, slug and name of each.
authors              json       Authors of its commits.
owner                json       User responsible for the release.
lastCommit           json       Newest commit.
lastDeploy           json       Newest deploy.
versionInfo          json       Parts of the version: package, major, minor, build.
data                 json       Additional data.
currentProjectMeta   json       Adjacent releases and session statistics in a project.
adoptionStages       json       Adoption of the release, by project.
""",
    # The column holds a list of them.
    references=(reference("projects", "projects", "many_to_many"),),
)

_PROJECT_DETAIL = Table(
    "project_detail",
    "Settings of projects; secrets are masked.",
    _PROJECT
    + """
color                           text       Color of the project's icon.
status                          text       Status: active, or a pending change such as deletion.
subjectPrefix                   text       Prefix of email subjects.
subjectTemplate                 text       Template of email subjects.
securityToken                   text       Token of security reports, masked.
securityTokenHeader             text       Header in which the security token is sent.
groupingConfig                  text       Rules by which events are grouped.
derivedGroupingEnhancements     text       Grouping rules derived by the server.
groupingEnhancements            text       Grouping rules written by users.
secondaryGroupingConfig         text       Previous grouping rules.
fingerprintingRules             text       Rules that set the fingerprints of events.
defaultEnvironment              text       Environment shown by default.
relayPiiConfig                  text       Data scrubbing rules, as JSON text.
symbolSources                   text       Sources of debug symbols, as JSON text; secrets are masked.
autofixAutomationTuning         text       How often Seer looks for fixes by itself.
debugFilesRole                  text       Role required to download debug files.
digestsMinDelay                 bigint     Shortest time between two digests, in seconds.
digestsMaxDelay                 bigint     Longest wait for a digest, in seconds.
resolveAge                      bigint     Hours without events after which issues are resolved.
storeCrashReports               bigint     Number of crash reports kept per issue.
secondaryGroupingExpiry         bigint     Until when the previous grouping rules are used, Unix time.
processingIssues                bigint     Number of events that could not be processed.
isInternal                      bool       Whether this is the server's own project.
isPublic                        bool       Whether the project is public.
dataScrubber                    bool       Whether values that look like secrets are scrubbed.
dataScrubberDefaults            bool       Whether the server's default scrubbing rules are used.
verifySSL                       bool       Whether certificates are verified when sources are fetched.
scrapeJavaScript                bool       Whether JavaScript sources are fetched from their URLs.
enableAutoReleaseCreation       bool       Whether releases are created from the events that name them.
isDynamicallySampled            bool       Whether the server samples transactions.
tempestFetchScreenshots         bool       Whether screenshots of PlayStation crashes are fetched.
seerScannerAutomation           bool       Whether Seer scans new issues.
scmSourceContextEnabled         bool       Whether source lines are fetched from version control.
avatar                          json       Type and id of the project's picture.
organization                    json       Organization of the project.
allowedDomains                  json       Domains from which browsers may send events.
safeFields                      json       Names of fields that are never scrubbed.
sensitiveFields                 json       Names of fields that are always scrubbed.
highlightTags                   json       Tags highlighted on the issue page.
highlightContext                json       Contexts highlighted on the issue page.
highlightPreset                 json       Default highlights.
builtinSymbolSources            json       Built-in sources of debug symbols.
dynamicSamplingBiases           json       Which transactions are kept preferentially.
seerNightshiftTweaks            json       Settings of Seer's nightly work.
"""
    + _SLUG,
    volatile=_RECENT_COUNTS,
    references=(reference("id", "projects", "one_to_one"),),
    has_gone_at=True,
    has_credentials=True,
)

TABLES = {
    table.name: table
    for table in (_EVENTS, _ISSUES, _PROJECTS, _RELEASES, _PROJECT_DETAIL)
}
