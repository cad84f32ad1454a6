"""Who may use the page: this machine, or anybody with the token; and only the page itself, no other site."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

COOKIE = "face_recognition_token"

# nothing from elsewhere, no inline scripts, no frames around the page
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Say whether an address to listen on is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """Checks every request.

    On a loopback address the name by which the page was asked for must be a loopback one, too: a foreign site
    whose name is made to lead here stays outside. On any other address a token is needed.
    """

    def __init__(self, host: str) -> None:
        self.token = "" if is_loopback(host) else secrets.token_urlsafe(24)

    def middleware(self) -> Middleware:
        """Return the check as aiohttp's middleware."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            refusal = self._refusal(request)
            if refusal:
                return web.Response(status=403, text=refusal, headers=HEADERS)
            if self.token and "token" in request.query:  # out of the address bar, into a cookie
                moved = web.Response(status=303, headers={**HEADERS, "Location": "/"})
                moved.set_cookie(COOKIE, self.token, httponly=True, samesite="Strict", path="/")
                return moved
            try:
                response = await handler(request)
            except web.HTTPException as error:
                error.headers.update(HEADERS)
                raise
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return check

    def _refusal(self, request: web.Request) -> str:
        """Return why a request is refused; empty: it is not."""
        if self.token:
            given = request.query.get("token") or request.cookies.get(COOKIE, "")
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return "This page needs the address with the token that was printed when it was started."
        elif not is_loopback(urlsplit(f"//{request.host}").hostname or ""):
            return f"Ask for this page as localhost or 127.0.0.1, not as {request.host}."
        is_socket = request.headers.get("Upgrade", "").lower() == "websocket"
        if request.method not in ("GET", "HEAD") or is_socket:
            origin = urlsplit(request.headers.get("Origin", ""))
            if not origin.netloc or origin.netloc != request.host:
                return "Requests from another site are refused."
        return ""
