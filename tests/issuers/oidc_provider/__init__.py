"""oidc-provider: our server script, and the npm package by a lock file."""
