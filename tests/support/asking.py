"""Questions that real sockets ask of the hosts of a running lab, and who answers, in the words of tests."""

from __future__ import annotations

import socket
from typing import NamedTuple

from lab.evidence.packet import SocketAddress
from lab.evidence.reach import Fate, Question, Target
from lab.scenario.processor import one_processor
from lab.scenario.reaching import Reaching
from lab.vocabulary import Family

PORT = 8080  # the pods' own
BOUND = 10  # seconds; a generous end to waits that an event ends within a millisecond


class Answer(NamedTuple):
    """Who answered, and as whom it saw the client."""

    server: str
    seen_as: str


class Network(Reaching):
    """Questions to the hosts of a running lab, of one family. Every server listens on PORT, whatever the Services."""

    in_order = staticmethod(one_processor)

    def __init__(self, lab, family):
        super().__init__(lab, family)
        for host in lab.topology.servers:
            for protocol in ("tcp", "udp"):
                self.listen(host.name, PORT, protocol=protocol)

    def socket(self, host, address, port=0, *, kind=socket.SOCK_STREAM, protocol=0):
        """Open a socket with an address of its own, for what is no question; it ends with the lab."""
        version = socket.AF_INET6 if self.family is Family.IPV6 else socket.AF_INET
        opened = self.lab.keep(self.lab.hosts[host].namespace.socket(version, kind, protocol))
        opened.settimeout(BOUND)
        opened.bind((address, port))
        return opened

    def reach(self, client, address, port=80, *, source=None, protocol="tcp"):
        """Ask from an address, a client's first one if None, and return all that is known of it."""
        question = Question(client, Target.VIP, SocketAddress(address, port), protocol, source or self.address(client))
        return self.ask_once(question)

    def ask_once(self, question):
        with one_processor():
            return super().ask(question, with_entry=False)

    def ask(self, client, address, port=80, *, source=None, protocol="tcp"):  # type: ignore[override] # in few words
        """Return who answers.

        :raises ConnectionRefusedError: nobody does, and the client hears of it.
        """
        fate = self.fate(client, address, port, source=source, protocol=protocol)
        if fate == "refused":
            raise ConnectionRefusedError
        assert isinstance(fate, Answer), fate
        return fate

    def fate(self, client, address, port=80, *, source=None, protocol="tcp"):
        """Return what becomes of a connection: an :class:`Answer`, ``refused`` or ``silence``."""
        reached = self.reach(client, address, port, source=source, protocol=protocol)
        if reached.fate is Fate.CONNECTED:
            return Answer(reached.server, reached.seen_as.address)
        return {Fate.REFUSED: "refused", Fate.TIMES_OUT: "silence"}.get(reached.fate, reached.words)

    def ask_by_datagram(self, client, address, port=80, *, source=None):
        """Send a datagram, and return who answers.

        :raises ConnectionRefusedError: an ICMP error came back.
        """
        return self.ask(client, address, port, source=source, protocol="udp")
