"""Who may write: lease rules (pure), the elector that plays by them, the gate that it opens."""
