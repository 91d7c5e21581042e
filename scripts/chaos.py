"""make chaos: see conf/chaos.yaml for what it takes and glmasr/training/chaos.py for what it does."""

from door import open_door


def chaos(config: dict) -> None:
    from glmasr.training import chaos

    chaos.chaos(config)


if __name__ == "__main__":
    open_door("chaos", chaos)
