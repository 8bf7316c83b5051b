"""From a captioner to a SavedModel that a server loads."""

from .saved_model import export_captioner

__all__ = ["export_captioner"]
