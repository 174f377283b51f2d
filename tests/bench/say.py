"""Progress on the terminal."""


def say(line: str) -> None:
    print(f"bench: {line}", flush=True)
