"""The version, for all who tell it."""

__version__ = "0.1.0.dev0"
