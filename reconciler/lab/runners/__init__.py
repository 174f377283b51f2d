"""Runners, the server that judges their tokens, and the accounts that both keep."""
