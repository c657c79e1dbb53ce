"""Who may read and control a run over HTTP. Each rule is a reason to refuse; none is a library's.

* `Host` must be a name that no stranger's DNS can point here: a page that reaches this port through
  DNS rebinding carries its own name. Loopback names and literal addresses resolve without DNS, and the
  port adds nothing, so they pass with any port (an SSH tunnel, a container's published port).
* `Sec-Fetch-Site`, or where a browser sends none `Origin`, must be the page's own, so that other sites
  can neither read nor post.
* Whatever changes the run needs the token (as a bearer, or in the page's SameSite=Strict cookie) and
  a JSON body, which no form can send. Beyond loopback reading needs the token as well.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from aa2c.web.strict_json import json_response

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # no address to go to: what reaches it here
OPEN_PATHS = ("/", "/healthz", "/readyz", "/session")
OPEN_PREFIX = "/static/"
HTTP_PORT = 80
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(?::([0-9]{1,5}))?")
_NAME = re.compile(r"[a-z0-9.-]{1,253}(?::[0-9]{1,5})?")  # what is safe to say again
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

RequestHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """What every request must pass, as a middleware."""

    def __init__(self, token: str, host: str, allowed_hosts: tuple[str, ...]) -> None:
        self._token = token
        self._allowed_hosts = tuple(name.lower() for name in allowed_hosts)
        own_names = () if host in EVERYWHERE else (host,)
        self._own_names = tuple(in_url(name).lower() for name in own_names)
        self._is_public = not is_loopback(host)

    @web.middleware
    async def check(self, request: web.Request, handler: RequestHandler) -> web.StreamResponse:
        """Answer the request, or say with its status why not."""
        if not self._is_own_host(request):
            flag = _flag(request.headers.get("Host", "").lower())
            return refusal(
                403, f"No run is served under this name: if it is yours, start with {flag}."
            )
        if not self._is_own_page(request):
            flag = _flag(_origin_host(request))
            return refusal(
                403, f"Other sites may not ask here: if it is your own proxy, start with {flag}."
            )
        if isinstance(error := request.match_info.http_exception, web.HTTPMethodNotAllowed):
            allowed = ", ".join(sorted(error.allowed_methods))
            return refusal(405, f"This takes {allowed}.", {"Allow": allowed})
        is_reading = request.method in ("GET", "HEAD")
        if not is_reading and request.content_type != "application/json":
            return refusal(415, "Send JSON, as application/json.")
        path = request.path
        is_open = path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
        may = is_open or (self.may_read if is_reading else self.may_control)(request)
        if not may:
            return refusal(401, "A token is needed: it is in the address that serve printed.")
        return await handler(request)

    def may_read(self, request: web.Request) -> bool:
        """Whether what is told of the run is for whoever asks."""
        return not self._is_public or self.may_control(request)

    def may_control(self, request: web.Request) -> bool:
        """Whether the request carries the token."""
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else request.cookies.get(cookie(request), "")
        return hmac.compare_digest(_bytes(given.strip()), _bytes(self._token))

    def admit(self, request: web.Request) -> web.Response:
        """Give the browser that shows the token a cookie that holds it."""
        if not self.may_control(request):
            return refusal(401, "This is not the token of this run.")
        response = web.Response(status=204)
        # Without a path a browser keeps it below the page's own: a proxy serves others' pages, too.
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
        if site == "same-origin":  # the browser's word, whatever a proxy made of Host and Origin
            return True
        if any(not self._is_own_origin(request, o) for o in headers.getall("Origin", [])):
            return False
        if site in ("", "none"):
            return True
        is_navigation = headers.get("Sec-Fetch-Mode") == "navigate"
        return is_navigation and request.method == "GET" and request.path == "/"

    def _is_own_origin(self, request: web.Request, origin: str) -> bool:
        """An allowed name is one where a proxy has put the address it asks in place of `Host`."""
        host = request.headers["Host"].lower()
        found = _HOST.fullmatch(host)
        is_address = found is not None and _needs_no_dns(found[1])
        hosts = (host, *self._allowed_hosts) if is_address else (host,)
        return origin.lower() in {f"{scheme}://{h}" for scheme in ("http", "https") for h in hosts}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return host == "localhost" or _address(host).is_loopback
    except ValueError:
        return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 client of a socket for both has its address in IPv6's clothes: without them."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _needs_no_dns(name: str) -> bool:
    """Whether no DNS answer can make this name of `Host` one of this machine."""
    try:
        return name == "localhost" or not _address(name.strip("[]")).is_unspecified
    except ValueError:
        return False


def cookie(request: web.Request) -> str:
    """The name of the page's cookie: browsers share cookies between ports, of tunnels as well."""
    port = request.headers.get("Host", "").rpartition(":")[2]
    return f"aa2c_{port if port.isdecimal() else _socket_port(request)}"


def refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error of the client, in a sentence."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else headers
    return json_response({"error": reason}, status, headers)


async def add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    """For each response, refusals included."""
    response.headers.update(SECURITY_HEADERS)


def _flag(host: str) -> str:
    """What lets this name in, to be copied."""
    return f"--allowed-host {host if _NAME.fullmatch(host) else 'NAME'}"


def _origin_host(request: web.Request) -> str:
    return request.headers.get("Origin", "").lower().partition("://")[2]


def _socket_port(request: web.Request) -> int:
    """The port by which the request came in."""
    transport = request.transport
    name = transport.get_extra_info("sockname") if transport else None
    return int(name[1]) if name else 0


def in_url(host: str) -> str:
    """A name or an address as it stands in a URL."""
    with contextlib.suppress(ValueError):
        host = str(_address(host))
    return f"[{host}]" if ":" in host else host


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
