"""The interchangeable kernel sets. ``contract`` says what one must do, ``registry`` which are here."""

from .ledger import ledger
from .registry import active_on, available, get, set_backend, use_backend
from .winograd import allow_winograd, winograd_allowed

__all__ = [
    "active_on",
    "allow_winograd",
    "available",
    "get",
    "ledger",
    "set_backend",
    "use_backend",
    "winograd_allowed",
]
