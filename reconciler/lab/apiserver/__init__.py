"""An API server in a box: a pure object store, and the two doors that lead into it.

`core` is the store with the real server's semantics; `shell` serves it over HTTP, `direct` hands it
to our own controller without any socket. Nothing else in here knows about either door.
"""
