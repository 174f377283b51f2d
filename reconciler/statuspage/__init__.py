"""The status page: a read-only view of the status snapshot, without external resources."""
