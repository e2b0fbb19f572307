"""Errors of the operating system as kinds of failure: the service is not blamed for this machine's limits."""

from __future__ import annotations

import errno
import ssl

import pytest

from hitless.drill.connection import failure_of
from hitless.drill.wire import FailureKind

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (OSError(errno.ECONNREFUSED, ""), FailureKind.CONNECTION_REFUSED),
        (OSError(errno.ECONNRESET, ""), FailureKind.CONNECTION_RESET),
        (OSError(errno.EPIPE, ""), FailureKind.CONNECTION_RESET),
        (OSError(errno.ENETUNREACH, ""), FailureKind.UNREACHABLE),
        (OSError(errno.EHOSTUNREACH, ""), FailureKind.UNREACHABLE),
        (OSError(errno.ETIMEDOUT, ""), FailureKind.UNREACHABLE),
        (OSError(errno.EADDRNOTAVAIL, ""), FailureKind.NOT_SENT),
        (OSError(errno.EMFILE, ""), FailureKind.NOT_SENT),
        (OSError(errno.ENFILE, ""), FailureKind.NOT_SENT),
        (OSError(errno.ENOBUFS, ""), FailureKind.NOT_SENT),
        (ssl.SSLCertVerificationError("unknown issuer"), FailureKind.TLS_ERROR),
    ],
)
def test_each_os_error_maps_to_its_failure_kind(error: OSError, failure: FailureKind) -> None:
    assert failure_of(error) is failure
