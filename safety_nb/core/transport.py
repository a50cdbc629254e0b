"""How the client of endpoints sends: to the address that was given and to no other, and no reply without end.

Knows nothing of what is asked, nor of the interface. Imports httpx, so that only who sends imports it.
"""

import zlib

import httpx

LONGEST_REPLY = 16 * 1024**2  # bytes after decompression; a thousand times a long answer
_CONNECTED_WITHIN = 10.0  # seconds; a host that takes longer is not there
_MOST_REDIRECTS = 5
_GZIP = zlib.MAX_WBITS | 16  # zlib's number for the format


class ReplyError(Exception):
    """A reply that cannot be taken as it comes; says why."""


class Client(httpx.AsyncClient):
    """A client that reads every reply whole, up to a limit, and follows a redirect only to the same server.

    What is sent are prompts and answers: where they may go the user decides, who named the server.
    """

    def __init__(self, timeout_seconds: float) -> None:
        timeout = httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, _CONNECTED_WITHIN))
        # What is not asked for need not be decompressed.
        headers, limits = {"accept-encoding": "gzip"}, httpx.Limits(max_connections=None)
        super().__init__(timeout=timeout, headers=headers, limits=limits)

    async def send(self, request: httpx.Request, *, stream: bool = False, **how) -> httpx.Response:
        """The reply to a request, read and decompressed; a redirect to another server is such a reply.

        Raises:
            ReplyError: the reply is too long, or compressed in a way that was not asked for.
        """
        for _ in range(_MOST_REDIRECTS):
            response = await super().send(request, stream=True, **{**how, "follow_redirects": False})
            try:
                content = await _content(response)
            finally:
                await response.aclose()
            following = response.next_request
            if following is None or following.method != request.method or _server(following) != _server(request):
                break
            request = following
        headers = httpx.Headers(response.headers)
        for name in ("content-encoding", "content-length", "transfer-encoding"):
            headers.pop(name, None)
        # Without its character set, which can name a compression too: JSON is UTF-8.
        headers["content-type"] = headers.get("content-type", "none").partition(";")[0]
        return httpx.Response(response.status_code, headers=headers, content=content, request=request)


def _server(request: httpx.Request) -> tuple[str, str, int | None]:
    return request.url.scheme, request.url.host, request.url.port


async def _content(response: httpx.Response) -> bytes:
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise ReplyError(f"the reply comes in the encoding {encoding[:40]!r}, which was not asked for")
    decompress = zlib.decompressobj(_GZIP).decompress if encoding.endswith("gzip") else lambda raw, _: raw
    received, content = 0, bytearray()
    async for raw in response.aiter_raw():
        received += len(raw)
        try:
            content += decompress(raw, LONGEST_REPLY + 1 - len(content))
        except zlib.error as error:
            raise ReplyError(f"the reply is no gzip: {error}") from None
        if max(received, len(content)) > LONGEST_REPLY:
            raise ReplyError(f"the reply is longer than {LONGEST_REPLY // 1024**2} MiB")
    return bytes(content)
