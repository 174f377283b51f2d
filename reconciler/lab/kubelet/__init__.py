"""A node's part: pods brought up, Secrets projected into files late, early, or stale."""
