"""What a user sees of the fleet: token states, rows and sentences from cluster metadata (pure).

Everything follows from objects that any reader may list; nothing asks the controller.
"""
