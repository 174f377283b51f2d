"""What a person sees of the fleet: verdicts, rows and sentences from cluster metadata (pure).

Everything here is drawn from what any reader may list; nothing asks the controller.
"""
