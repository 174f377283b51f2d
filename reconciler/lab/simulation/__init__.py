"""The whole system on virtual time: the same controller, a world that a seed draws."""
