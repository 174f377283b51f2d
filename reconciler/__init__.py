"""Keeps the short-lived token of every runner pod alive in its Kubernetes Secret."""

__version__ = "0.1.0"
