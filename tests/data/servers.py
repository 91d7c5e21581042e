"""A folder in; the same files over HTTP or an S3 protocol server on loopback, with what was asked of them, out."""

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """Where it is; the bytes given out for each path; how many further requests are to fail."""

    url: str = ""
    given: dict[str, int] = field(default_factory=dict)
    failures: int = 0


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves byte ranges, which Python's own handler does not."""

    def __init__(self, *args, served: Served, **options):
        self.served = served
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if self.served.failures > 0:
            self.served.failures -= 1
            self.send_error(503)
            return
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2] or len(content) - 1)) if asked else (0, len(content) - 1)
        part = content[start : end + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.end_headers()
        self.served.given[path.name] = self.served.given.get(path.name, 0) + len(part)
        self.wfile.write(part)

    def log_message(self, *_) -> None:
        pass


@contextlib.contextmanager
def over_http(folder: Path) -> Iterator[Served]:
    """The folder at `served.url`."""
    served = Served()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RangeHandler, served=served, directory=str(folder)))
    served.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()


@contextlib.contextmanager
def over_s3(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The folder as a bucket of an S3 server: its URL, and the environment that finds it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "anyone",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="anyone",
            aws_secret_access_key="anything",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="speech")
        for file in sorted(folder.iterdir()):
            client.upload_file(str(file), "speech", f"shards/{file.name}")
        yield "s3://speech/shards", environment
    finally:
        server.stop()
