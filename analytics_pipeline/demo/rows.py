"""What the rows of the demo server hold: JSON with `$names` that `fill` puts in."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

Row = dict[str, Any]


def _names(text: str) -> list[str]:
    return text.split()


def _template(text: str) -> str:
    """The text for the % operator, which is far faster than string.Template."""
    return re.sub(r"\$(\w+)", r"%(\1)s", text)


def fill(template: str, **values: str | int | None) -> Row:
    """A new row of this template; a text replaces its `$name` with quotes around it."""
    texts = {name: orjson.dumps(value).decode() for name, value in values.items()}
    row: Row = orjson.loads(template % texts)
    return row


FLAGS = _names("""isBookmarked firstTransactionEvent hasFeedbacks hasFlags hasMonitors
    hasMinifiedStackTrace hasNewFeedbacks hasProfiles hasReplays hasSessions hasLogs
    hasInsightsHttp hasInsightsDb hasInsightsAssets hasInsightsAppStart isInternal
    hasInsightsScreenLoad hasInsightsVitals hasInsightsCaches hasInsightsQueues isPublic
    hasInsightsAgentMonitoring hasInsightsMCP hasTraceMetrics hasUserReports""")

PROJECT = _template("""{
    "id": $id, "slug": $slug, "name": $name, "platform": $platform,
    "platforms": [$language], "dateCreated": $created, "isMember": true,
    "hasAccess": true, "firstEvent": null, "features": ["releases"],
    "access": ["org:read", "project:read", "event:read"], "color": "#3fbf7f",
    "status": "active", "avatar": {"avatarType": "letter_avatar", "avatarUuid": null},
    "team": {"id": "1", "slug": "shop", "name": "Shop"}, "latestDeploys": null,
    "teams": [{"id": "1", "slug": "shop", "name": "Shop"}], "latestRelease": null,
    "organization": {"id": "1", "slug": $organization, "name": $organization},
    "environments": ["production", "staging"], "scrubIPAddresses": true,
    "eventThrottleRate": 0}""")

DETAIL = _template("""{
    "securityToken": $security_token, "securityTokenHeader": null,
    "options": {"sentry:token": $sentry_token, "publicKey": "demo-public-key",
    "mail": {"host": "mail.example.test", "password": "demo-password"},
    "tokenCount": 2}, "symbolSources": $symbol_sources,
    "digestsMinDelay": 300, "digestsMaxDelay": 1800, "subjectPrefix": "",
    "allowedDomains": ["*"], "resolveAge": 0, "dataScrubber": true, "safeFields": [],
    "dataScrubberDefaults": true, "storeCrashReports": null, "verifySSL": false,
    "sensitiveFields": ["password"], "subjectTemplate": "", "scrapeJavaScript": true,
    "relayPiiConfig": null, "enableAutoReleaseCreation": true,
    "highlightTags": ["environment"], "highlightContext": {},
    "highlightPreset": {"tags": [], "context": {}}, "derivedGroupingEnhancements": "",
    "groupingConfig": "newstyle:2023-01-11", "groupingEnhancements": "",
    "secondaryGroupingExpiry": 0, "secondaryGroupingConfig": null, "stats": null,
    "fingerprintingRules": "", "processingIssues": 0, "debugFilesRole": null,
    "defaultEnvironment": null, "builtinSymbolSources": ["ios"],
    "dynamicSamplingBiases": [{"id": "boostLatestRelease", "active": true}],
    "isDynamicallySampled": true, "tempestFetchScreenshots": false,
    "autofixAutomationTuning": "off", "seerScannerAutomation": true,
    "seerNightshiftTweaks": null, "scmSourceContextEnabled": true,
    "transactionStats": null, "sessionStats": null}""")

RELEASE = _template("""{
    "id": $id, "version": $version, "shortVersion": $short, "status": $status,
    "versionInfo": {"package": $slug, "version": {"raw": $short}}, "ref": $ref,
    "dateCreated": $created, "dateReleased": $released, "commitCount": $commits,
    "deployCount": $deploys, "newGroups": 0, "url": null, "dateStarted": null,
    "owner": null, "lastCommit": {"id": $commit, "message": "Fix the cart"},
    "lastDeploy": null, "data": {}, "firstEvent": null, "lastEvent": null,
    "currentProjectMeta": {}, "userAgent": "sentry-cli/2.40.0", "adoptionStages": {},
    "authors": [{"name": "Ada Example", "email": "ada@example.test"}]}""")

ISSUE = _template("""{
    "id": $id, "shortId": $short, "title": $title, "culprit": $culprit,
    "permalink": $permalink, "level": $level, "status": $status, "platform": $platform,
    "metadata": {"type": $type, "value": $value, "filename": $filename,
    "function": $function}, "count": "1", "userCount": 0, "firstSeen": $time,
    "lastSeen": $time, "stats": {"24h": [[$hour, 3], [$hour, 0], [$hour, 1]]},
    "shareId": null, "logger": null, "substatus": null, "isPublic": false,
    "priority": "medium", "priorityLockedAt": null, "seerFixabilityScore": null,
    "seerAutofixLastTriggered": null, "seerExplorerAutofixLastTriggered": null,
    "statusDetails": {}, "type": "error", "issueType": "error", "numComments": 0,
    "issueCategory": "error", "assignedTo": null, "isBookmarked": false,
    "isSubscribed": false, "subscriptionDetails": null, "hasSeen": false,
    "annotations": [], "isUnhandled": true, "derivedData": {}, "lifetime": {},
    "filtered": null, "sessionCount": 0, "inbox": {}, "owners": {},
    "integrationIssues": [], "sentryAppIssues": [], "matchingEventId": null,
    "latestEventHasAttachments": false, "matchingEventEnvironment": null}""")

ENTRIES = _template("""{"entries": [
    {"type": "exception", "data": {"values": [{"type": $type,
    "value": $value, "mechanism": {"type": "generic", "handled": false},
    "stacktrace": {"frames": [
    {"filename": "shop/server.py", "absPath": "/srv/shop/server.py", "lineNo": 212,
    "module": "shop.server", "function": "handle", "inApp": false, "context": [
    [211, "    with self.transaction(request) as transaction:"],
    [212, "        response = self.dispatch(request, transaction)"],
    [213, "    return self.finish(response)"]], "vars": {"method": "'POST'"}},
    {"filename": "shop/routes.py", "absPath": "/srv/shop/routes.py", "lineNo": 87,
    "module": "shop.routes", "function": "dispatch", "inApp": true, "context": [
    [86, "    view = self.views[request.path]"],
    [87, "    return view(request, **arguments)"],
    [88, ""]], "vars": {"arguments": {"page": "1", "currency": "'EUR'"}}},
    {"filename": $filename, "absPath": $filename, "lineNo": 42, "module": null,
    "function": $function, "inApp": true, "context": [
    [41, "    order = current_order(session)"],
    [42, "    result = step(order, retries=2)"],
    [43, "    return result"]], "vars": {"retries": "2", "order": "<Order 4711>"}}
    ]}}]}}, {"type": "request", "data": {"method": "POST",
    "url": "https://shop.example.test/cart", "headers": [["Content-Type",
    "application/json"]]}}]}""")


def event(issue: Row, user: int, release: str | None, trace: str, **fields: Any) -> Row:
    """A new event of the issue, but for its stack trace.

    There are thousands of them, and a template would be slower.
    """
    browser = ("Firefox", "Chrome", "Safari")[user % 3]
    environment = "staging" if user % 10 == 0 else "production"
    tags = {
        "level": issue["level"],
        "release": release or "unknown",
        "environment": environment,
        "browser": browser,
        "user": f"id:{user}",
        "server_name": "web-1",
        "handled": "yes" if issue["level"] in ("warning", "info") else "no",
        "url": "https://shop.example.test/cart",
    }
    return fields | {
        "eventID": fields["id"],
        "groupID": issue["id"],
        "message": issue["title"],
        "title": issue["title"],
        "culprit": issue["culprit"],
        "location": issue["metadata"]["filename"],
        "metadata": dict(issue["metadata"]),
        "user": {
            "id": str(user),
            "email": f"user{user}@example.test",
            "username": f"user{user}",
            "ip_address": f"203.0.113.{user % 256}",
        },
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
        "release": release,
        "environment": environment,
        "event.type": "error",
        "type": "error",
        "crashFile": None,
        "dist": None,
        "errors": [],
        "packages": {},
        "context": {"cart": {"items": user % 7, "total": 59.9}},
        "sdk": {"name": "sentry.demo", "version": "2.0.0"},
        "contexts": {
            "browser": {"name": browser, "version": "130.0", "type": "browser"},
            "trace": {"trace_id": trace, "op": "http.server", "type": "trace"},
        },
    }


# What Sentry's whole events have besides, with startTimestamp and endTimestamp.
WHOLE: Row = orjson.loads("""{
    "_meta": {"entries": {}, "message": null, "user": null, "contexts": null,
    "sdk": null, "context": null, "packages": null, "tags": {"0": {"value": {"": {
    "rem": [["@ip:replace", "s", 0, 4]], "len": 12}}}}},
    "groupingConfig": {"id": "newstyle:2023-01-11", "enhancements": "demo"},
    "measurements": {"lcp": {"value": 2150.5, "unit": "millisecond"}},
    "breakdowns": {"span_ops": {"ops.db": {"value": 81.25, "unit": "millisecond"}}}}""")

# The fields of an event in Sentry's list, without full=true.
SUMMARY = _names("""id event.type groupID eventID projectID message title location
    culprit user tags platform dateCreated crashFile metadata""")


@dataclass(frozen=True)
class Shape:
    """How one server writes and orders the rows that it sends."""

    order: Mapping[str, str]  # table → the field by which its list is sorted
    event_time: str = "auto"  # how datetime.isoformat writes an event's dates
    other_time: str = "auto"  # and all other dates
    project_id: type[str] | type[int] = str  # in an event
    lag: float = 0.0  # an event is received up to so many seconds late, in any order
    delay: float = 0.0  # some are received up to so many seconds late, listed in order
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)  # all, if absent


_ORDER = {
    "events": "dateCreated",
    "issues": "lastSeen",
    "projects": "dateCreated",
    "releases": "dateCreated",
    "project_detail": "dateCreated",
}
_GLITCHTIP_PROJECT = _names("""name slug id avatar color features hasAccess isBookmarked
    isInternal isMember isPublic scrubIPAddresses dateCreated platform firstEvent
    eventThrottleRate organization""")
SHAPES = {
    "v1": Shape(_ORDER),
    "sentry": Shape(
        _ORDER | {"projects": "slug"}, event_time="seconds", delay=3 * 86_400.0
    ),
    "glitchtip": Shape(
        _ORDER | {"events": "dateReceived", "projects": "slug"},
        event_time="milliseconds",
        other_time="milliseconds",
        project_id=int,
        lag=1800.0,
        fields={
            "events": _names("""platform errors id eventID projectID groupID
                dateCreated dateReceived dist culprit packages type message metadata
                tags entries contexts context user sdk title"""),
            "issues": _names("""id count type level status project shortId stats
                numComments shareId logger permalink statusDetails subscriptionDetails
                userCount matchingEventId firstSeen lastSeen title metadata culprit"""),
            "releases": _names("""ref dateReleased version dateCreated shortVersion
                projects url data deployCount"""),
            "projects": _GLITCHTIP_PROJECT,
            "project_detail": _GLITCHTIP_PROJECT,
        },
    ),
}
