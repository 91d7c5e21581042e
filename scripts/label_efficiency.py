"""make label-efficiency: see conf/label_efficiency.yaml for what it takes and glmasr/evaluation/label_efficiency.py."""

from door import open_door


def label_efficiency(config: dict) -> None:
    from glmasr.evaluation.label_efficiency import run_label_efficiency

    run_label_efficiency(config)


if __name__ == "__main__":
    open_door("label_efficiency", label_efficiency)
