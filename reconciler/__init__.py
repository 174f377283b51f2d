"""Refreshes the short-lived token of every runner pod in its Kubernetes Secret."""

__version__ = "0.1.0"
