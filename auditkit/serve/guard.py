"""Who may ask: the bearer token, and the host name on a server without one."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from auditkit.serve.api_errors import ApiError
from auditkit.serve.settings import is_loopback

OPEN_PATHS = ("/healthz",)


class Guard:
    """Lets requests through that present `token`; `/healthz` needs none and tells nothing.

    Without a token the server listens on loopback, and only requests that name a loopback host
    pass: a web page whose name resolves to 127.0.0.1 (DNS rebinding) is refused.
    """

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refusal(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
            return
        response = JSONResponse(error.body(), status_code=error.status, headers=error.headers)
        await response(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        if scope["path"] in OPEN_PATHS:
            return None
        headers = Headers(scope=scope)
        if self._token is None:
            return None if _names_loopback(headers.get("host", "")) else _wrong_host()
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Compared in full whatever the scheme is, and in constant time.
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token)
        if scheme.lower() == "bearer" and same:
            return None
        return ApiError(
            401,
            "this server needs its token: Authorization: Bearer …",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _names_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return is_loopback(name.strip("[]").lower())


def _wrong_host() -> ApiError:
    return ApiError(
        403,
        "this server answers to 127.0.0.1 and localhost only; to reach it by another name, start "
        "it with a token",
        code="wrong_host",
    )
