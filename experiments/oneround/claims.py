from pathlib import Path


def publish_all(to: Path) -> None:
    pass
