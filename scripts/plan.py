"""make plan: see conf/plan.yaml for what it takes and glmasr/planning/plan.py for what it does."""

from door import open_door


def plan(config: dict) -> None:
    from glmasr.planning import table

    table.plan(config)


if __name__ == "__main__":
    open_door("plan", plan)
