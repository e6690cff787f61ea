"""The socket that is listened on: bound before anything is loaded, closed at the end without losing a connection."""

import ctypes
import logging
import socket
import struct
import sys

from service.errors import StartError

log = logging.getLogger("adrank.serve")
BACKLOG = 2048
"""Connections the system keeps waiting; uvicorn's own number."""
SO_ATTACH_FILTER = SO_GET_FILTER = 26
"""Of Linux, to set and to get; Python has no name for it."""
UNACKED = slice(24, 28)
"""tcpi_unacked in Linux's tcp_info: of a listening socket, how many connections wait to be accepted."""
FLAGS_BYTE, SYN = 13, 0x02
REFUSE_SYN = (
    (0x30, 0, 0, FLAGS_BYTE),  # load the byte of the TCP header that has its flags
    (0x54, 0, 0, SYN),  # and SYN
    (0x15, 0, 1, 0),  # is it 0? then the next, else the one after
    (0x06, 0, 0, 0xFFFFFFFF),  # let the whole packet through
    (0x06, 0, 0, 0),  # drop it
)
"""A program of the classic Berkeley packet filter: (code, jump if true, jump if false, operand) each."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens before anything is loaded: a port that is taken is said at once. Requests that come during
    the start wait for it. StartError when it cannot be."""
    listener = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it. Worker processes get the bare descriptor, for which the event loop does not
        # set it; an answer's second packet then waited 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # two processes may bind one port, but only one of them may listen
        listener.set_inheritable(True)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
    return listener


def refuse_new(listener: socket.socket) -> None:
    """No connection begins any more, in no process that has this socket; those that have begun can still be accepted.

    Closing a listening socket resets connections that the system made and nobody accepted yet: their clients believe
    that they are connected, and may have sent a request. So first connections must stop coming, then the last is
    accepted, then it is closed. A client whose SYN is dropped tries again by itself after a second; then the socket is
    closed, and it is told so.
    """
    if sys.platform != "linux":
        log.warning("connections that come in the moment of the stop may be reset: %s has no such filter", sys.platform)
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in REFUSE_SYN))
    described = struct.pack("HL", len(REFUSE_SYN), ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)
    except OSError as error:  # a sandbox that forbids it
        log.warning("connections that come in the moment of the stop may be reset: no packet filter: %s", error)


def waiting(listener: socket.socket) -> int:
    """Connections that the system made and nobody accepted yet; 0 where it does not tell."""
    if sys.platform != "linux":
        return 0
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, UNACKED.stop)
    return int.from_bytes(info[UNACKED], sys.byteorder)


def refuses_new(listener: socket.socket) -> bool:
    """Whether `refuse_new` was called for the socket, in whatever process."""
    try:
        return bool(listener.getsockopt(socket.SOL_SOCKET, SO_GET_FILTER, 8 * len(REFUSE_SYN)))
    except OSError:
        return False
