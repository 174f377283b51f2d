"""The status page: a survey shown to people, read-only, complete in itself."""
