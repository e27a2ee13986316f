"""The local page: an image goes in, the answer of the nets comes out, nothing is kept.

Enters: a Predictor; requests from this machine. Leaves: HTML whose pictures are data URIs, so that
it asks for nothing else. Whoever asks is refused under another host's name and from another site's
page, and waits for those before, who are few.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import PurePath

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from datasets.pictures import SUFFIXES, read_image
from deploy import answers
from deploy.predictor import Predictor
from reports.pages import data_uri, render

log = logging.getLogger(__name__)

HOSTS = ("127.0.0.1", "localhost")  # names by which this machine calls itself
MOST_BYTES = 50_000_000  # of an image
FORM_BYTES = 10_000  # what the form has around it, at most
MOST_WAITING = 8  # images that are sent or waited for at a time
SECONDS = 30  # to send one
SHOWN = ("overlays", "crops", "heat")  # pictures, all of them JPEG


class Connection(H11Protocol):
    """Ends a connection over which no request comes; uvicorn waits for one for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.asked = False
        self.loop.call_later(SECONDS, self._end_unless_asked)

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        super().data_received(data)
        self.asked = self.cycle is not None

    def _end_unless_asked(self) -> None:
        if not self.asked:
            self.transport.close()


class _InMemory(MultiPartParser):
    """Keeps what is sent off the disk."""

    spool_max_size = 2 * MOST_BYTES


def build_app(
    predictor: Predictor,
    names: Sequence[str],
    *,
    most_bytes: int = MOST_BYTES,
    most_waiting: int = MOST_WAITING,
    seconds: float = SECONDS,
) -> Starlette:
    """The page as an ASGI application.

    Args:
        predictor: answers, for one image at a time.
        names: of the trainings that answer.
        most_bytes: of an image; more is counted and thrown away.
        most_waiting: who comes when so many are sent or waited for is told to come again.
        seconds: within which an image has to be sent.
    """
    sent_or_waiting = 0
    one_at_a_time = asyncio.Lock()

    def page(request: Request, status: int = 200, headers: dict | None = None, **content):
        content = {"card": None, "problem": None} | content
        html = render(
            "page.html.j2",
            nets=names,
            endings=",".join(SUFFIXES),
            most_bytes=most_bytes,
            use=answers.NOT_FOR_DIAGNOSIS,
            nonce=request.scope["nonce"],
            **content,
        )
        return HTMLResponse(html, status, headers)

    async def show(request: Request) -> Response:
        return page(request)

    async def ask(request: Request) -> Response:
        nonlocal sent_or_waiting
        wait = sent_or_waiting >= most_waiting
        sent_or_waiting += 1
        try:
            async with asyncio.timeout(seconds):
                if wait:
                    await _throw_away(request)
                    again = {"Retry-After": "10"}
                    said = f"{most_waiting} images are waiting already. Try again in a few seconds."
                    raise HTTPException(503, said, again)
                name, content = await _receive(request, most_bytes)
            async with one_at_a_time:
                if await request.is_disconnected():
                    return Response(status_code=499)  # nobody reads it
                card = await run_in_threadpool(_answer, predictor, name, content)
        except TimeoutError:
            raise HTTPException(408, f"The image did not arrive within {seconds:g} s.") from None
        except ClientDisconnect:
            return Response(status_code=499)
        except asyncio.CancelledError:  # by Ctrl-C, which waits for an answer for a while
            raise HTTPException(503, "The page was closed meanwhile.") from None
        finally:
            sent_or_waiting -= 1
        return page(request, card=card)

    async def refused(request: Request, error: HTTPException) -> Response:
        named = {
            404: "There is nothing at this address. The page is at /.",
            405: "This address does not take such requests.",
        }
        problem = named.get(error.status_code, error.detail)
        return page(request, error.status_code, error.headers, problem=problem)

    return Starlette(
        routes=[Route("/", show, methods=["GET"]), Route("/", ask, methods=["POST"])],
        middleware=[Middleware(_Guard)],
        exception_handlers={HTTPException: refused},
    )


async def _receive(request: Request, most_bytes: int) -> tuple[str, bytes]:
    """Name and bytes of the image in a form; HTTPException where there is none."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        await _throw_away(request)
        raise HTTPException(415, "Expected the form of this page, with an image.")

    async def counted() -> AsyncIterator[bytes]:
        count = 0
        async for part in request.stream():
            count += len(part)
            # all of it is let in, as browsers take an early answer for a broken connection
            if count <= most_bytes + FORM_BYTES:
                yield part
        if count > most_bytes + FORM_BYTES:
            raise HTTPException(
                413, f"The image is larger than {most_bytes / 1e6:g} MB, the limit."
            )

    stream = counted()
    try:
        form = await _InMemory(request.headers, stream, max_files=1, max_fields=1).parse()
    except (MultiPartException, KeyError, UnicodeError, LookupError):
        async for _ in stream:
            pass
        raise HTTPException(400, "The form is damaged, or holds more than one image.") from None
    image = form.get("image")
    if image is None or isinstance(image, str) or not (image.size or image.filename):
        raise HTTPException(400, "No image was sent. Choose one.")
    name = (image.filename or "image").encode(errors="replace").decode()
    return name.replace("%22", '"'), await image.read()  # as browsers write a quotation mark


async def _throw_away(request: Request) -> None:
    async for _ in request.stream():
        pass


def _answer(predictor: Predictor, name: str, content: bytes) -> dict:
    """What the page says of an image; HTTPException where it is no picture, or on a failure."""
    try:
        image = read_image(content)[0]
    except ValueError as error:
        raise HTTPException(422, f"{name}: {error}") from None
    except MemoryError:
        raise HTTPException(422, f"{name}: too large for the memory of this machine") from None
    try:
        said = predictor.predict_batch([image])[0]
        pictures = answers.draw(image, said, SHOWN)
    except Exception:  # whatever it is, the page goes on for the next image
        log.exception("an image was not answered")
        where = "The terminal that this page was started in says why."
        raise HTTPException(500, f"{name}: the networks could not answer. {where}") from None
    files = {kind: data_uri(drawn, "image/jpeg") for kind, (_, drawn) in pictures.items()}
    row = answers.row_of(PurePath(name).stem, said)
    return answers.card_of(row | {"path": name, "files": files})


def _is_this_machine(host: str) -> bool:
    """Whether the header Host names this machine, with or without a port."""
    name, _, port = host.lower().partition(":")
    return name in HOSTS and (port.isdigit() or name == host.lower())


class _Guard:
    """Refuses whoever was sent by another site, and tells browsers to load nothing from elsewhere.

    A page elsewhere whose host name leads to this machine has that name in the header Host; a form
    of it has its address in the header Origin.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        nonce = scope["nonce"] = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
            f"'nonce-{nonce}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = policy
                headers["X-Frame-Options"] = "DENY"
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"
                headers["Cross-Origin-Opener-Policy"] = "same-origin"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                headers["Cache-Control"] = "no-store"
            await send(message)

        request = Request(scope, receive)
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        app: ASGIApp = self.app
        if not _is_this_machine(host):
            app = Response("This page answers as 127.0.0.1 and localhost alone.\n", 421)
        elif origin is not None and origin != f"http://{host}":
            app = Response("This page takes images from its own form alone.\n", 403)
        await app(scope, receive, send_guarded)
