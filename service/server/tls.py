"""TLS for the ports of the service: one certificate for HTTP, gRPC and the admin API's own port."""

import ssl
from pathlib import Path

from service.settings import Settings
from service.systemerrors import reason_of


def context_of(settings: Settings) -> ssl.SSLContext | None:
    """What connections are encrypted with; None where they are not. Raises OSError and ssl.SSLError for bad files."""
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return context


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
    except OSError as error:
        return reason_of(error)
    return None
