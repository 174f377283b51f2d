"""An API server for the lab: a pure object store with two interfaces.

`core` is the store with the real server's semantics. `http_server` serves it over HTTP,
`in_process_client` gives it to our controller without a socket. No other module depends on the two.
"""
