"""The product against issuers that others wrote, on loopback: Keycloak, and more by name."""
