"""TLS for the ports of the service: one certificate for HTTP, gRPC and the admin API's own port."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from service.settings import Settings
from service.systemerrors import reason_of

_HANDSHAKE: Final = 10.0  # seconds, at most, in which a client has to agree on keys
_GOODBYE: Final = 0.5  # seconds that a client gets to answer that its connection ends


def context_of(settings: Settings) -> ssl.SSLContext | None:
    """What connections are encrypted with; None where they are not.

    Raises OSError, ssl.SSLError and ValueError for bad files.
    """
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=_no_password)
    return context


def arguments_of(settings: Settings) -> Mapping[str, Any]:
    """What the event loop is told for connections that it encrypts; nothing where they are not.

    A client that reads nothing, as those that keep a connection do, does not answer our goodbye: it is not waited for.
    """
    context = context_of(settings)
    if context is None:
        return {}
    patience = min(settings.client_seconds, _HANDSHAKE)
    return {"ssl": context, "ssl_handshake_timeout": patience, "ssl_shutdown_timeout": _GOODBYE}


def _no_password() -> str:
    raise ValueError("the key is encrypted, and nobody is there to type its password")


def pem_of(settings: Settings) -> tuple[bytes, bytes] | None:
    """The private key and the certificate chain as they are in their files, for gRPC; None where there is no TLS."""
    if settings.tls_certificate is None:
        return None
    key = settings.tls_key or settings.tls_certificate
    return Path(key).read_bytes(), settings.tls_certificate.read_bytes()


def why_not(settings: Settings) -> str | None:
    """Why there can be no TLS with these settings; None where it can be had, or is not wanted."""
    if settings.tls_certificate is None and settings.tls_key is not None:
        return "there is a key, and no certificate"
    try:
        context_of(settings)
    except ssl.SSLError as error:
        return f"{settings.tls_certificate} and its key cannot be used: {error.reason or error}"
    except ValueError as error:
        return str(error)
    except OSError as error:
        return reason_of(error)
    return None
