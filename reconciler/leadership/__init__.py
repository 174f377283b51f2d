"""Leader election: the lease rules (pure), the elector that applies them, the write fence."""
