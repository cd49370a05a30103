"""Whether the model hub can be reached, asked once and only where it is needed; without it nothing waits for it."""

import logging
import os
import socket
import threading
from functools import lru_cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from secateur.pruning.errors import DataError

log = logging.getLogger(__name__)

SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
PATIENCE = 4.0
"""Seconds within which a hub has to answer to a connection, names looked up included."""


def stay_offline() -> None:
    """Keep the hub's libraries from the network; has to come before they are imported."""
    for name in SWITCHES:
        os.environ.setdefault(name, "1")


def endpoint() -> tuple[str, int]:
    """Host and port that a request to the hub goes to first: the hub's, its mirror's or the proxy's."""
    url = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and url.hostname and not proxy_bypass(url.hostname):
        url = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return url.hostname or "huggingface.co", url.port or (443 if url.scheme == "https" else 80)


@lru_cache(maxsize=1)
def reachable(seconds: float = PATIENCE) -> bool:
    """Whether something answers there in time; a name server that is silent counts as no."""
    found = threading.Event()

    def knock() -> None:
        try:
            socket.create_connection(endpoint(), timeout=seconds).close()
        except OSError:
            return
        found.set()

    attempt = threading.Thread(target=knock, daemon=True)
    attempt.start()
    attempt.join(seconds)
    return found.is_set()


def need_hub() -> None:
    """Refuse at once what can only come from a hub that cannot be reached.

    Raises:
        DataError: Nothing answers where the hub, its mirror or the proxy should be.
    """
    if "HF_HUB_OFFLINE" not in os.environ and not reachable():
        raise DataError(
            f"{endpoint()[0]} cannot be reached from here. Run this command on a machine with internet, or name a "
            "mirror (HF_ENDPOINT) or a proxy (HTTPS_PROXY)"
        )


def offline_if_unreachable() -> None:
    """Use the hub's cache alone when the hub cannot be reached: what is missing is then said at once."""
    if "HF_HUB_OFFLINE" in os.environ or reachable():
        return
    stay_offline()
    log.warning(
        "%s cannot be reached: only what is in this machine's cache of the hub is used; without internet give "
        "model.path=DIR, calibration.path=FILE and eval.data_dir=DIR (`secateur fetch` prepares them elsewhere)",
        endpoint()[0],
    )
