"""make prepare: see conf/prepare.yaml for what it takes and glmasr/data/prepare.py for what it does."""

import sys

from door import open_door

ALIASES = {"source=": "data@source=", "path=": "source.path="}
"""What people write, and its address: `source` is a choice of the group `data`."""


def prepare(config: dict) -> None:
    from glmasr.data.prepare import prepare_corpus

    prepare_corpus(config)


def addressed(argument: str) -> str:
    for short, address in ALIASES.items():
        if argument.startswith(short):
            return address + argument.removeprefix(short)
    return argument


if __name__ == "__main__":
    sys.argv[1:] = map(addressed, sys.argv[1:])
    open_door("prepare", prepare)
