"""Templates of the demo server's rows: JSON with `$names` that `fill` replaces."""

import re
from typing import Any

import orjson

Row = dict[str, Any]


def _template(text: str) -> str:
    """Return the text for the % operator, which is far faster than string.Template."""
    return re.sub(r"\$(\w+)", r"%(\1)s", text)


def fill(template: str, **values: str | int | None) -> Row:
    """Return a new row of this template, with each `$name` replaced by its JSON."""
    texts = {name: orjson.dumps(value).decode() for name, value in values.items()}
    row: Row = orjson.loads(template % texts)
    return row


PROJECT = _template("""{
    "id": $id, "slug": $slug, "name": $name, "platform": $platform,
    "platforms": [$language], "dateCreated": $created, "isMember": true,
    "isBookmarked": false, "isInternal": false, "isPublic": false, "hasAccess": true,
    "firstEvent": null, "features": ["releases"], "color": "#3fbf7f",
    "avatar": {"avatarType": "letter_avatar", "avatarUuid": null},
    "organization": {"id": "1", "slug": $organization, "name": $organization},
    "team": {"id": "1", "slug": "shop", "name": "Shop"}, "status": "active",
    "environments": ["production", "staging"], "scrubIPAddresses": true}""")

DETAIL = _template("""{
    "securityToken": $security_token, "symbolSources": $symbol_sources,
    "options": {"sentry:token": $sentry_token, "publicKey": "demo-public-key",
    "mail": {"host": "mail.example.test", "password": "demo-password"}}}""")

RELEASE = _template("""{
    "id": $id, "version": $version, "shortVersion": $short, "status": $status,
    "versionInfo": {"package": $slug, "version": {"raw": $short}}, "ref": $ref,
    "dateCreated": $created, "dateReleased": $released, "commitCount": $commits,
    "deployCount": $deploys, "newGroups": 0, "url": null, "data": {},
    "lastCommit": {"id": $commit, "message": "Fix the cart"},
    "authors": [{"name": "Ada Example", "email": "ada@example.test"}]}""")

ISSUE = _template("""{
    "id": $id, "shortId": $short, "title": $title, "culprit": $culprit,
    "permalink": $permalink, "level": $level, "status": $status, "platform": $platform,
    "metadata": {"type": $type, "value": $value, "filename": $filename,
    "function": $function}, "count": "1", "userCount": 0, "firstSeen": $time,
    "lastSeen": $time, "stats": {"24h": [[$hour, 3], [$hour, 0], [$hour, 1]]},
    "type": "error", "logger": null, "substatus": null, "priority": "medium",
    "statusDetails": {}, "numComments": 0, "assignedTo": null, "isUnhandled": true,
    "filtered": null}""")

ENTRIES = _template("""{"entries": [
    {"type": "exception", "data": {"values": [{"type": $type,
    "value": $value, "mechanism": {"type": "generic", "handled": false},
    "stacktrace": {"frames": [
    {"filename": "shop/server.py", "absPath": "/srv/shop/server.py", "lineNo": 212,
    "module": "shop.server", "function": "handle", "inApp": false, "context": [
    [211, "    with self.transaction(request) as transaction:"],
    [212, "        response = self.dispatch(request, transaction)"],
    [213, "    return self.finish(response)"]], "vars": {"method": "'POST'"}},
    {"filename": $filename, "absPath": $filename, "lineNo": 42, "module": null,
    "function": $function, "inApp": true, "context": [
    [41, "    order = current_order(session)"],
    [42, "    result = step(order, retries=2)"],
    [43, "    return result"]], "vars": {"retries": "2", "order": "<Order 4711>"}}
    ]}}]}}, {"type": "request", "data": {"method": "POST",
    "url": "https://shop.example.test/cart", "headers": [["Content-Type",
    "application/json"]]}}]}""")


def event(issue: Row, user: int, release: str | None, trace: str, **fields: Any) -> Row:
    """Return a new event of the issue, without its stack trace.

    A template would be slower, and there are thousands of events.
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


# The fields of an event in Sentry's list, without full=true.
SUMMARY = re.findall(
    r"\S+",
    """id event.type groupID eventID projectID message title location culprit user
    tags platform dateCreated crashFile metadata""",
)
