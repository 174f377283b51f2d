"""What can be known before the controller runs: rights, issuer, platform, clock, surroundings."""
