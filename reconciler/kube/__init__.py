"""The Kubernetes client: credentials, verbs, metadata-only objects, one error class per failure."""
