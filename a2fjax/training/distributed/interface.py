"""Finds the address of this machine that the other processes of a run reach."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time

from a2fjax.errors import InputError, WorkFailed

_DNS_SECONDS = 60.0


def listen(host: str, port: int, *, bind: str, deadline: float) -> socket.socket:
    """Returns a socket that listens on one address of this machine.

    Args:
      host: name by which the other processes reach this one.
      port: port.
      bind: address to listen on; "" for the address of `host`.
      deadline: `time.monotonic()` until which the name may become known; the names of pods take
        some seconds.

    Raises:
      InputError: the address is not one of this machine.
      WorkFailed: the port is taken, or the name is not known.
    """
    address = bind or _address(host, deadline)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=1024)
    except socket.gaierror:
        raise InputError(f"A2F_BIND={bind!r}: expected an address of this machine") from None
    except OSError as error:
        if error.strerror and "assign" in error.strerror:
            raise InputError(
                f"process 0: {host} is {address}, which is no address of this machine; set "
                "A2F_BIND to the one that the other processes reach"
            ) from None
        raise WorkFailed(
            f"process 0: port {port} of {address} cannot be listened on ({error.strerror}); "
            "another run on this machine may hold it"
        ) from None


def _address(host: str, deadline: float) -> str:
    addresses = _resolve(host, min(deadline, time.monotonic() + _DNS_SECONDS))
    if not addresses:
        # The others may know the name all the same.
        route = _default_route()
        if not route:
            raise WorkFailed(
                f"process 0: {host}: the name is not known here; check A2F_COORDINATOR, or set "
                "A2F_BIND to an address of this machine"
            )
        return route
    if _is_local_name(host):
        return addresses[0]
    reachable = [a for a in addresses if not ipaddress.ip_address(a.partition("%")[0]).is_loopback]
    # Some distributions give a machine's own name a loopback address that no other can reach.
    return reachable[0] if reachable else _default_route() or addresses[0]


def _is_local_name(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _resolve(host: str, deadline: float) -> list[str]:
    """Returns the addresses of a name; [] if it is not known until `deadline`."""
    while True:
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            # Stable: a container may resolve IPv6 addresses that it has no interface for.
            return sorted((str(entry[4][0]) for entry in entries), key=lambda a: ":" in a)
        except (OSError, UnicodeError):
            if time.monotonic() > deadline:
                return []
        time.sleep(0.5)


def _default_route() -> str:
    """Returns the address of the interface towards the network; "" if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        # Nothing is sent: connecting a datagram socket only chooses an interface.
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return ""
