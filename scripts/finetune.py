"""make finetune: see conf/finetune.yaml for what it takes and glmasr/training/run.py for what it does."""

from door import open_door


def finetune(config: dict) -> None:
    from glmasr.training import run

    run.finetune(config)


if __name__ == "__main__":
    open_door("finetune", finetune)
