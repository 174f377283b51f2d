"""The product with real issuers on loopback: Keycloak, and others by name."""
