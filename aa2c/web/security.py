"""Who may read and control a run over HTTP. Each rule is a reason to refuse; none is a library's.

* `Host` must be a name under which the run listens: a page of another site that reaches this port
  through DNS rebinding carries its own name.
* `Origin` and `Sec-Fetch-Site` must be the page's own, so that other sites can neither read nor post.
* Whatever changes the run needs the token (as a bearer, or in the page's SameSite=Strict cookie) and
  a JSON body, which no form can send. Beyond loopback reading needs the token as well.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # no address to go to: what reaches it here
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
OPEN_PATHS = ("/", "/healthz", "/readyz", "/session")
OPEN_PREFIX = "/static/"
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
            return refusal(403, "This Host is not served here: see --allowed-host.")
        if not _is_own_page(request):
            return refusal(403, "Other sites may not ask here.")
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
        response.set_cookie(
            cookie(request), self._token, httponly=True, samesite="Strict", path="/"
        )
        return response

    def _is_own_host(self, request: web.Request) -> bool:
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1:
            return False
        host = hosts[0].lower()
        name, _, port = host.rpartition(":")
        if not name or host.endswith("]"):
            name, port = host, "80"
        address, own_port = _socket_name(request)
        if host in self._allowed_hosts:
            return True
        names = [in_url(address), *self._own_names, *self._allowed_hosts]
        if is_loopback(address):
            names += LOOPBACK_NAMES
        return port == str(own_port) and name in names


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


def cookie(request: web.Request) -> str:
    """The name of the page's cookie: browsers share cookies between ports."""
    return f"aa2c_{_socket_name(request)[1]}"


def refusal(status: int, reason: str) -> web.Response:
    """An error of the client, in a sentence."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    body = json.dumps({"error": reason})
    return web.Response(status=status, text=body, content_type="application/json", headers=headers)


async def add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    """For each response, refusals included."""
    response.headers.update(SECURITY_HEADERS)


def _is_own_page(request: web.Request) -> bool:
    """Whether the request is from the run's page, from no page at all, or opens a page."""
    headers = request.headers
    origins = headers.getall("Origin", [])
    host = headers.get("Host", "").lower()
    if any(o.lower() not in (f"http://{host}", f"https://{host}") for o in origins):
        return False
    if headers.get("Sec-Fetch-Site", "none").lower() in ("same-origin", "none"):
        return True
    is_navigation = headers.get("Sec-Fetch-Mode") == "navigate"
    return is_navigation and request.method == "GET" and request.path == "/"


def _socket_name(request: web.Request) -> tuple[str, int]:
    """Address and port by which the request came in."""
    transport = request.transport
    name = transport.get_extra_info("sockname") if transport else None
    return (name[0], name[1]) if name else ("", 0)


def in_url(host: str) -> str:
    """A name or an address as it stands in a URL."""
    with contextlib.suppress(ValueError):
        host = str(_address(host))
    return f"[{host}]" if ":" in host else host


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
