"""make shards: see conf/shards.yaml for what it takes and glmasr/data/export.py for what it does."""

from door import open_door


def shards(config: dict) -> None:
    from glmasr.data.export import export_corpus

    export_corpus(config)


if __name__ == "__main__":
    open_door("shards", shards)
