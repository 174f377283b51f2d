"""The files of a release beside the code: the same files from the same commit."""
