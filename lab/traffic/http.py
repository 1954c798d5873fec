# SPDX-License-Identifier: MIT
"""A real web server and real downloads: nginx and curl."""

from __future__ import annotations

from typing import Final

from lab.evidence.packet import SocketAddress
from lab.netns import Namespace, RunningProgram
from lab.netns.program import find
from lab.netns.running import WITH_ALL_IT_STARTS

_NAME: Final = "stream"

# Everything that nginx writes goes into a file system that is its own and vanishes with it, in place of /var, where
# nginx keeps its log before it has read what it is told.
_IN_A_FILE_SYSTEM_OF_ITS_OWN: Final = (
    "mount -t tmpfs lab /var && cd /var && mkdir -p log/nginx && "
    f'printf %s "$1" > nginx.conf && cat > {_NAME} && exec "$0" -p /var -c nginx.conf'
)

# The user is said, for in a user namespace there is no other.
_CONFIGURATION: Final = """
daemon off;
user root;
worker_processes 2;
pid nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {address};
        root /var;
    }}
}}
"""


async def serve(namespace: Namespace, address: SocketAddress, content: bytes) -> RunningProgram:
    """Start nginx in a namespace, and return when it takes connections.

    :param content: what it gives to whoever asks for :func:`url`.
    :raises MissingError: nginx is not installed.
    :raises ProgramError: it did not start; its own words.
    """
    configuration = _CONFIGURATION.format(address=_written(address))
    script = ("sh", "-c", _IN_A_FILE_SYSTEM_OF_ITS_OWN, find("nginx"), configuration)
    server = RunningProgram(namespace, (*WITH_ALL_IT_STARTS, *script), given=content)
    try:
        await server.says("start worker process ")  # its sockets are open by then
    except BaseException:
        server.close()
        raise
    return server


def url(address: SocketAddress) -> str:
    """Return where the content is to be had."""
    return f"http://{_written(address)}/{_NAME}"


def download(namespace: Namespace, source: str, limit: float) -> RunningProgram:
    """Start curl in a namespace; its output is what it received.

    :param limit: in seconds; then it ends with exit code 28.
    :raises MissingError: curl is not installed.
    """
    plainly = ("--disable", "--noproxy", "*", "--silent", "--show-error", "--max-time", str(limit))
    return RunningProgram(namespace, ("curl", *plainly, source))


def _written(address: SocketAddress) -> str:
    host = f"[{address.address}]" if ":" in address.address else address.address
    return f"{host}:{address.port}"
