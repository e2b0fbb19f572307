"""The certificates that HAProxy serves, as files for its start and by its runtime API without a restart.

A stage with a listener has one. Each host at the shared listener has one in HAProxy's list of certificates, which names
a file only while it exists, because HAProxy would not start.
"""

from __future__ import annotations

from hitless.documents import replace_file
from hitless.gateway.executor import Executor
from hitless.gateway.render import Layout
from hitless.gateway.runtime import RejectedError


class CertificateFiles:
    """The certificates of one gateway, by stage or host. The caller holds the gateway's lock.

    With `running`, HAProxy gets each change before its files do, so that a change that is cut off is made again.
    """

    def __init__(self, layout: Layout, executor: Executor) -> None:
        self._layout, self._executor, self._list = layout, executor, layout.certificate_list

    async def put(self, name: str, pem: str, *, running: bool) -> bool:
        """Serve the chain and key; False if they are in use already. Raises RejectedError or UnreachableError."""
        file, line, ask = self._layout.certificate(name), self._line(name), self._executor.ask
        listed = line in self._lines()
        if listed and file.exists() and file.read_text() == pem:
            return False
        if running:
            if not listed:
                await ask(f"new ssl cert {file}")  # it exists after a change that was cut off
            await self._tell(f"set ssl cert {file} <<\n{pem}", "Transaction")
            await self._tell(f"commit ssl cert {file}", "Success!")
            if not listed and line not in await ask(f"show ssl crt-list {self._list}"):
                await self._tell(f"add ssl crt-list {self._list} <<\n{line}\n", "Success!")
        replace_file(file, pem, mode=0o600)
        if not listed:
            self._write([*self._lines(), line])
        return True

    async def remove(self, host: str, *, running: bool) -> bool:
        """Serve the host no more; False if it has no certificate. Raises RejectedError or UnreachableError."""
        file, line = self._layout.certificate(host), self._line(host)
        if not file.exists():
            return False
        self._write([one for one in self._lines() if one != line])
        if running and line in await self._executor.ask(f"show ssl crt-list {self._list}"):
            await self._tell(f"del ssl crt-list {self._list} {file}", "deleted")
        if running:
            await self._executor.ask(f"del ssl cert {file}")
        file.unlink()
        return True

    async def _tell(self, command: str, expected: str) -> None:
        if expected not in (answer := await self._executor.ask(command)):
            raise RejectedError(f"HAProxy refuses the certificate: {' '.join(answer.split())}")

    def _line(self, name: str) -> str:
        """The line of a host in the list; "" for a stage, which has no dot."""
        return f"{self._layout.certificate(name)} {name}" if "." in name else ""

    def _lines(self) -> list[str]:
        return ["", *(self._list.read_text().splitlines() if self._list.exists() else [])]

    def _write(self, lines: list[str]) -> None:
        replace_file(self._list, "".join(f"{line}\n" for line in lines if line), mode=0o600)
