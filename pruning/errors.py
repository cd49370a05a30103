"""Errors meant for the user: what was given, what is allowed, what to do next."""


class SecateurError(Exception):
    """Base of every error that is reported as one message, without a traceback."""


class ConfigError(SecateurError):
    """A config value is unknown, out of range, or contradicts another one."""


class ModelError(SecateurError):
    """A model cannot be loaded, or lacks the modules that its family promises."""


class DataError(SecateurError):
    """Text or task data is missing, too short, damaged, or would leak evaluation data."""


class NumericsError(SecateurError):
    """A loss or gradient is NaN or infinite and the config says that this is fatal."""


class BudgetError(SecateurError):
    """The parameter budget cannot be met under the guard rails."""


class MemoryLimitError(SecateurError):
    """The device or the host has too little memory for what was asked."""


class StorageError(SecateurError):
    """A checkpoint, cache entry or record is missing, truncated or unreadable."""
