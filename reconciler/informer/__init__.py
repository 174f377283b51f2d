"""A cache of pods and Secrets: the list/watch protocol, its I/O (reflector), and the store."""
