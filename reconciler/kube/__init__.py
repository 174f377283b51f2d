"""How we talk to Kubernetes: credentials, verbs, partial objects, and each failure's class."""
