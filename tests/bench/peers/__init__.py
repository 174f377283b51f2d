"""Operators that do the same work with the frameworks of others."""
