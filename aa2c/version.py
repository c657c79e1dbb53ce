"""The version, for code and metadata alike."""

__version__ = "0.1.0"
