"""Who may write: lease rules (pure), the elector that plays by them, the fence that it opens."""
