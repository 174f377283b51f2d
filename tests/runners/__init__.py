"""The examples of docs/runners.md, by their own tool chains, against the lab's gRPC server."""
