"""What can be checked before the controller runs: rights, issuer, platform, clock, environment."""
