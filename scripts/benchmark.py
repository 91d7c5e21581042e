"""make benchmark: see conf/benchmark.yaml for what it takes and glmasr/evaluation/run.py for what it does."""

from door import open_door


def benchmark(config: dict) -> None:
    from glmasr.evaluation.run import run_benchmark

    run_benchmark(config)


if __name__ == "__main__":
    open_door("benchmark", benchmark)
