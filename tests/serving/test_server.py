"""A server listens where it is told, says so, and ends when all it has begun is done."""

import asyncio
from types import SimpleNamespace

import httpx
import pytest
import uvicorn

from glmasr.serving.server import Server, listening
from glmasr.serving.service import Limits, Service
from glmasr.speech import InputError
from tests.serving.served import Counting, served


def test_an_address_that_cannot_be_had_is_one_sentence():
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} .*choose another --port"):
            listening("127.0.0.1", port)
    for host, port in (("203.0.113.7", 0), ("127.0.0.1", 99_999), ("no.such.host.invalid", 0)):
        with pytest.raises(InputError, match="nothing can listen on"):
            listening(host, port)


def test_it_says_where_it_listens(intake, capfd):
    service = Service(Counting(), None, intake)
    with served(service) as url:
        assert httpx.get(f"{url}/health").status_code == 200
    service.close()
    assert capfd.readouterr() == (f"glmasr: counting listens on {url} (Ctrl-C ends it)\n", "")


def test_it_ends_when_it_is_idle_or_when_it_has_waited_long_enough():
    class Draining(SimpleNamespace):
        def drain(self):
            self.is_draining = True

    service = Draining(is_draining=False, is_idle=False, limits=Limits(drain_seconds=0.05))

    async def tick(server):
        return await server.on_tick(1)

    server = Server(uvicorn.Config(lambda: None), service)
    assert asyncio.run(tick(server)) is False
    server.handle_exit(15, None)
    assert service.is_draining and asyncio.run(tick(server)) is False
    service.is_idle = True
    assert asyncio.run(tick(server)) is True

    async def waited():
        service.is_idle, server.should_exit = False, False
        server.until = float("inf")
        first = await server.on_tick(1)
        await asyncio.sleep(0.1)
        return first, await server.on_tick(1)

    assert asyncio.run(waited()) == (False, True)
    assert not server.force_exit
    server.handle_exit(2, None)
    assert server.force_exit
