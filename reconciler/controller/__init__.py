"""What to do for each session, pure, and the workers that carry it out."""
