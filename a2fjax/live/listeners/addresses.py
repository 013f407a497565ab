"""Addresses of listeners and servers, and who may reach them."""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
from urllib.parse import urlsplit

from a2fjax.errors import InputError

LOCAL = "127.0.0.1"
TOKEN_VARIABLE = "A2F_LIVE_TOKEN"
"""Environment variable with the token that others must show; flags would show it to everybody."""

SHORTEST_TOKEN = 16


def parse(text: str, *, where: str, host: str | None = None) -> tuple[str, int]:
    """Returns (host, port) of "HOST:PORT", or of "PORT" where a host is given.

    Example:
        >>> parse("[::1]:39539", where="--osc")
        ('::1', 39539)

    Raises:
      InputError: another form, or no port from 1 to 65535.
    """
    name, colon, port = text.rpartition(":")
    if not colon and host is not None:
        name = host
    name = name.removeprefix("[").removesuffix("]")
    if not name or not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65_535:
        form = "HOST:PORT" if host is None else "PORT or HOST:PORT"
        raise InputError(f"{where} {text!r}: expected {form} with a port of 1 to 65535")
    return name, int(port)


def udp_socket(text: str, *, where: str) -> tuple[socket.socket, tuple]:
    """Returns (socket, address) for datagrams to "HOST:PORT".

    Raises:
      InputError: another form, or a host that does not exist.
    """
    host, port = parse(text, where=where)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"{where} {text!r}: no such host ({error})") from None
    out = socket.socket(found[0], socket.SOCK_DGRAM)
    out.setblocking(False)
    return out, found[4]


def token_for(host: str, *, where: str) -> str | None:
    """Returns the token that whoever connects must show; None on this machine without one.

    Raises:
      InputError: a host beyond this machine without a token, or a token that is short.
    """
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise InputError(f"{TOKEN_VARIABLE}: expected at least {SHORTEST_TOKEN} characters")
    if token is None and not is_local(host):
        raise InputError(
            f"{where} {host}: other machines could connect; set {TOKEN_VARIABLE} to a token that "
            f"they must show, or bind {LOCAL}"
        )
    return token


def is_local(host: str) -> bool:
    """Returns whether only this machine can reach what is bound to a host.

    Example:
        >>> is_local("localhost"), is_local("0.0.0.0")
        (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local_page(origin: str) -> bool:
    """Returns whether a page comes from this machine, by its `Origin`.

    A page of a file has the origin "null", and so has a frame that any site shuts off: it is not
    trusted.

    Example:
        >>> is_local_page("http://localhost:8000"), is_local_page("https://example.com")
        (True, False)
    """
    try:
        return is_local(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def admits(token: str | None, header: str | None, query: str | None = None) -> bool:
    """Returns whether somebody showed the token.

    Args:
      token: the token; None where none is needed.
      header: value of the header `Authorization`, "Bearer TOKEN".
      query: value of the parameter `token` of a URL, for browsers.
    """
    if token is None:
        return True
    shown = (header or "").removeprefix("Bearer ").strip() or query or ""
    return hmac.compare_digest(shown.encode(), token.encode())
