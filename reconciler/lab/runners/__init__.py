"""Runners, the gRPC server that checks their tokens, and the exposure ledger."""
