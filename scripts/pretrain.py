"""make pretrain: see conf/pretrain.yaml for what it takes and glmasr/training/run.py for what it does."""

from door import open_door


def pretrain(config: dict) -> None:
    from glmasr.training import run

    run.pretrain(config)


if __name__ == "__main__":
    open_door("pretrain", pretrain)
