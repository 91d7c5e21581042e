"""The server's /health in, exit code 0 where it answers 200 out: what the images' HEALTHCHECK runs."""

import os
import sys
import urllib.request

PORT = os.environ.get("GLMASR_PORT", "7860")
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(f"http://127.0.0.1:{PORT}/health", timeout=4) as answer:
        sys.exit(0 if answer.status == 200 else 1)
except OSError as error:
    sys.exit(f"no health at port {PORT}: {error}")
