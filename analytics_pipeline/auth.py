"""The token: how it is sent, and where it may go."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

import requests

from analytics_pipeline.errors import ConfigurationError, InsecureUrl


class BearerAuth(requests.auth.AuthBase):
    """Being set, it also keeps requests from sending a login found in ~/.netrc."""

    def __init__(self, token: str) -> None:
        self.__header = f"Bearer {token}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self.__header
        return request


def check_base_url(base_url: str, allow_http: bool) -> None:
    """The token must not cross a network in the clear.

    Raises:
        InsecureUrl: not a URL, or http:// to another machine without `allow_http`.
    """
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        bare = re.sub(r"^[a-z]*:?/*", "", base_url) if "/" in base_url else base_url
        example = f"did you mean https://{bare}?" if "." in bare else "give https://…"
        raise InsecureUrl(f"base_url {base_url!r} is not an address; {example}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InsecureUrl("base_url must hold no login, query or fragment")
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise InsecureUrl(
            f"base_url {base_url!r} would send the token unencrypted; use https://,"
            " or set allow_http if the network is yours"
        )


def check_token(token: str) -> None:
    """No header takes other characters, and errors about headers show them.

    Raises:
        ConfigurationError: empty, or not of visible ASCII characters only.
    """
    if not re.fullmatch("[!-~]+", token):
        raise ConfigurationError(
            "auth_token holds a space, a line break or another character that is in"
            " no token; check how it was copied"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
