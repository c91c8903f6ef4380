"""Whether the server in this container is ready, as an exit code; what it says is kept by `docker inspect`.

Run with `python -I -S`: without site-packages this is a process of some 30 ms.
"""

# ruff: noqa: INP001  (a program, no part of a package)

import http.client
import os
import sys
from typing import Final

_SECONDS: Final = 2.5  # less than the timeout of the image's HEALTHCHECK


def ask(port: int) -> tuple[bool, str]:
    """Whether the server at this port of the loopback interface is ready, and what it says or why it says nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", "/health/ready", headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status == http.client.OK, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return False, f"port {port}: {error}"
    finally:
        connection.close()


if __name__ == "__main__":
    ready, said = ask(int(os.environ.get("EMBEDDING_PORT", "8000")))
    sys.stdout.write(f"{said}\n")
    sys.exit(not ready)
