"""HandCLIP: teach CLIP to recognise people by their hands, with numbers that can be defended."""

__version__ = "0.1.0"
