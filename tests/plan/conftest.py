"""The tiny config as a document, its trainings, and its plan as JSON."""

from config_documents import config
from tiny_trainings import document, tiny

__all__ = ["config", "document", "tiny"]
