"""How the kernel's errors are named: what this machine lacks is never blamed on the service."""

from __future__ import annotations

import errno
import ssl

import pytest

from hitless.drill.connection import failure_of
from hitless.drill.wire import Failure

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (OSError(errno.ECONNREFUSED, ""), Failure.CONNECTION_REFUSED),
        (OSError(errno.ECONNRESET, ""), Failure.CONNECTION_RESET),
        (OSError(errno.EPIPE, ""), Failure.CONNECTION_RESET),
        (OSError(errno.ENETUNREACH, ""), Failure.UNREACHABLE),
        (OSError(errno.EHOSTUNREACH, ""), Failure.UNREACHABLE),
        (OSError(errno.ETIMEDOUT, ""), Failure.UNREACHABLE),
        (OSError(errno.EADDRNOTAVAIL, ""), Failure.NOT_SENT),
        (OSError(errno.EMFILE, ""), Failure.NOT_SENT),
        (OSError(errno.ENFILE, ""), Failure.NOT_SENT),
        (OSError(errno.ENOBUFS, ""), Failure.NOT_SENT),
        (ssl.SSLCertVerificationError("unknown issuer"), Failure.TLS_ERROR),
    ],
)
def test_an_error_is_named_by_whose_it_is(error: OSError, failure: Failure) -> None:
    assert failure_of(error) is failure
