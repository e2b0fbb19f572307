"""A DNS server on 127.0.0.1 for tests: the records of a table, NXDOMAIN for every other name."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator, Mapping

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Records = Mapping[tuple[str, str], list[str]]
"""(name, type) → the texts of its records."""


@contextlib.contextmanager
def dns_server(records: Records) -> Iterator[str]:
    """ADDRESS:PORT of the server, which reads the table at each question."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked = dns.message.from_wire(self.request[0])
            (question,) = asked.question
            reply = dns.message.make_response(asked)
            reply.flags |= dns.flags.RA
            name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
            if (name, kind) in records:
                reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *records[name, kind]))
            elif not any(name == known for known, _ in records):
                reply.set_rcode(dns.rcode.NXDOMAIN)
            self.request[1].sendto(reply.to_wire(), self.client_address)

    with socketserver.UDPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield "{}:{}".format(*server.server_address)
        finally:
            server.shutdown()
            thread.join()
