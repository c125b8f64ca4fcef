"""Multimodal Pathway (arXiv 2401.14405): improve a transformer with the weights of another modality's."""

__version__ = "0.1.0"
