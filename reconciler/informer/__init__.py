"""What the cluster holds, kept current: the list/watch protocol, its I/O shell, and the store."""
