"""Whether the server in this container is ready, as an exit code; what it says is kept by `docker inspect`.

Run with `python -I -S`: without site-packages this is a process of some 30 ms.
"""

# ruff: noqa: INP001  (a program, no part of a package)

import http.client
import os
import ssl
import sys
from typing import Final

_SECONDS: Final = 2.5  # less than the timeout of the image's HEALTHCHECK
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (nothing is bound)
"""Where to ask a server that listens on all interfaces."""


def ask(host: str, port: int) -> tuple[bool, str]:
    """Whether the server that listens there is ready, and what it says or why it says nothing."""
    connection = _connection(_LOOPBACK.get(host, host), port)
    try:
        connection.request("GET", "/health/ready", headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status == http.client.OK, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return False, f"{host} port {port}: {error}"
    finally:
        connection.close()


def _connection(host: str, port: int) -> http.client.HTTPConnection:
    if not os.environ.get("EMBEDDING_TLS_CERTIFICATE"):
        return http.client.HTTPConnection(host, port, timeout=_SECONDS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is known who this is
    return http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context)


if __name__ == "__main__":
    ready, said = ask(os.environ.get("EMBEDDING_HOST", "127.0.0.1"), int(os.environ.get("EMBEDDING_PORT", "8000")))
    sys.stdout.write(f"{said}\n")
    sys.exit(not ready)
