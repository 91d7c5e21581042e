"""make bundle: see conf/bundle.yaml for what it takes and glmasr/training/midway.py for what it does."""

from door import open_door


def bundle(config: dict) -> None:
    from glmasr.training import midway

    midway.bundle(config)


if __name__ == "__main__":
    open_door("bundle", bundle)
