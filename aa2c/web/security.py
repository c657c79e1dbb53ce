"""Who may read and control a run over HTTP. Each rule is a reason to refuse; no library is involved.

* `Host` must be a name that a stranger's DNS cannot point here: a page that reaches this port by DNS
  rebinding sends its own name. Loopback names and literal addresses resolve without DNS, and the port
  adds nothing, so that they pass with any port (an SSH tunnel, a container's published port).
* `Sec-Fetch-Site` (or `Origin`, from browsers that do not send it) must be the dashboard's own, so that
  other sites can neither read nor post.
* Whatever changes the run needs the token (as a bearer, or in the dashboard's SameSite=Strict cookie)
  and a JSON body, which no form can send. Beyond loopback, reading needs the token as well.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from aa2c.web.strict_json import json_response

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # cannot be connected to: what can, locally
OPEN_PATHS = ("/", "/healthz", "/readyz", "/session")
OPEN_PREFIX = "/static/"
HTTP_PORT = 80
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(?::([0-9]{1,5}))?")
_NAME = re.compile(r"[a-z0-9.-]{1,253}(?::[0-9]{1,5})?")  # what is safe to echo
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

RequestHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """A middleware that every request must pass."""

    def __init__(self, token: str, host: str, allowed_hosts: tuple[str, ...]) -> None:
        self._token = token
        self._allowed_hosts = tuple(name.lower() for name in allowed_hosts)
        own_names = () if host in EVERYWHERE else (host,)
        self._own_names = tuple(in_url(name).lower() for name in own_names)
        self._is_public = not is_loopback(host)

    @web.middleware
    async def check(self, request: web.Request, handler: RequestHandler) -> web.StreamResponse:
        """Answer the request, or refuse it with a status and a reason."""
        if not self._is_own_host(request):
            flag = _flag(request.headers.get("Host", "").lower())
            return refusal(403, f"No run is served under this name. If it is yours, add {flag}.")
        if not self._is_own_page(request):
            flag = _flag(_origin_host(request))
            return refusal(
                403,
                f"Requests from other sites are refused. If this is your own proxy, add {flag}.",
            )
        if isinstance(error := request.match_info.http_exception, web.HTTPMethodNotAllowed):
            allowed = ", ".join(sorted(error.allowed_methods))
            return refusal(405, f"Use {allowed}.", {"Allow": allowed})
        is_reading = request.method in ("GET", "HEAD")
        if not is_reading and request.content_type != "application/json":
            return refusal(415, "Send JSON, as application/json.")
        path = request.path
        is_open = path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
        may = is_open or (self.may_read if is_reading else self.may_control)(request)
        if not may:
            return refusal(401, "This needs the token, which is in the address that serve printed.")
        return await handler(request)

    def may_read(self, request: web.Request) -> bool:
        """Whether the request may read."""
        return not self._is_public or self.may_control(request)

    def may_control(self, request: web.Request) -> bool:
        """Whether the request carries the token."""
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else request.cookies.get(cookie(request), "")
        return hmac.compare_digest(_bytes(given.strip()), _bytes(self._token))

    def admit(self, request: web.Request) -> web.Response:
        """Exchange the token for a cookie that holds it."""
        if not self.may_control(request):
            return refusal(401, "This is not the token of this run.")
        response = web.Response(status=204)
        # With an empty path it stays below the dashboard's own: a proxy may serve other pages as well.
        response.set_cookie(
            cookie(request),
            self._token,
            httponly=True,
            samesite="Strict",
            path="",
            secure=request.headers.get("Origin", "").startswith("https:"),
        )
        return response

    def _is_own_host(self, request: web.Request) -> bool:
        hosts = request.headers.getall("Host", [])
        found = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        if found is None:
            return False
        name, port = found[1], int(found[2] or HTTP_PORT)
        if _needs_no_dns(name) or found[0] in self._allowed_hosts:
            return True
        names = (*self._own_names, *self._allowed_hosts)
        return name in names and port == _socket_port(request)

    def _is_own_page(self, request: web.Request) -> bool:
        """Whether the request is from the run's page, from no page at all, or opens a page."""
        headers = request.headers
        site = headers.get("Sec-Fetch-Site", "").lower()
        if site == "same-origin":  # from the browser, however a proxy rewrote Host and Origin
            return True
        if any(not self._is_own_origin(request, o) for o in headers.getall("Origin", [])):
            return False
        if site in ("", "none"):
            return True
        is_navigation = headers.get("Sec-Fetch-Mode") == "navigate"
        return is_navigation and request.method == "GET" and request.path == "/"

    def _is_own_origin(self, request: web.Request, origin: str) -> bool:
        """An allowed name also counts if a proxy replaced `Host` by its upstream's address."""
        host = request.headers["Host"].lower()
        found = _HOST.fullmatch(host)
        is_address = found is not None and _needs_no_dns(found[1])
        hosts = (host, *self._allowed_hosts) if is_address else (host,)
        return origin.lower() in {f"{scheme}://{h}" for scheme in ("http", "https") for h in hosts}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an endpoint there."""
    try:
        return host == "localhost" or _address(host).is_loopback
    except ValueError:
        return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address; IPv4-mapped IPv6 addresses, which dual-stack sockets report, are unwrapped."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _needs_no_dns(name: str) -> bool:
    """Whether this name in `Host` is resolved without DNS."""
    try:
        return name == "localhost" or not _address(name.strip("[]")).is_unspecified
    except ValueError:
        return False


def cookie(request: web.Request) -> str:
    """The name of the dashboard's cookie, by port: browsers share cookies between ports."""
    port = request.headers.get("Host", "").rpartition(":")[2]
    return f"aa2c_{port if port.isdecimal() else _socket_port(request)}"


def refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    """A client error, with the reason in a sentence."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else headers
    return json_response({"error": reason}, status, headers)


async def add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Add them to every response, refusals included."""
    response.headers.update(SECURITY_HEADERS)


def _flag(host: str) -> str:
    """The flag that allows this name, to be copied."""
    return f"--allowed-host {host if _NAME.fullmatch(host) else 'NAME'}"


def _origin_host(request: web.Request) -> str:
    return request.headers.get("Origin", "").lower().partition("://")[2]


def _socket_port(request: web.Request) -> int:
    """The port at which the request arrived."""
    transport = request.transport
    name = transport.get_extra_info("sockname") if transport else None
    return int(name[1]) if name else 0


def in_url(host: str) -> str:
    """A name or address as written in a URL."""
    with contextlib.suppress(ValueError):
        host = str(_address(host))
    return f"[{host}]" if ":" in host else host


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
