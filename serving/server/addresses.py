"""The addresses at which a server listens."""

import socket

from ..errors import ServingError


def listen(host: str, port: int) -> socket.socket:
    """Opens a socket at an address.

    Args:
        host: A name or an address of IPv4 or IPv6.
        port: 0 picks a free one.

    Returns:
        A socket that takes connections.

    Raises:
        ServingError: If the address cannot be used, and why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        # Python appends the address in parentheses.
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise ServingError(
            "A server needs an address of its own. Cannot listen at "
            f"{write_address(host, port)}: {reason}. Stop what listens there, "
            "or choose another host or port."
        ) from error


def write_address(host: str, port: int) -> str:
    """Returns "host:port", with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
