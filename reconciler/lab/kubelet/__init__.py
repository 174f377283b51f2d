"""The node: starts pods, and projects Secrets into files at once, late, or from a stale cache."""
