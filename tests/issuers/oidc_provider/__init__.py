"""oidc-provider: its own server script, the package from the npm registry by a lock file."""
