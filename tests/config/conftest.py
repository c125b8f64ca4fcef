"""The tiny config as a document."""

from config_documents import config

__all__ = ["config"]
