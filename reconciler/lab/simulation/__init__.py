"""The whole system on virtual time: the real controller in a world that a seed determines."""
