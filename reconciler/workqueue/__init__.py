"""The work queue, which is also the timer: one entry a session, with a time and a reason."""
