"""make clusters: see conf/clusters.yaml for what it takes and glmasr/training/clusters.py for what it does."""

from door import open_door


def clusters(config: dict) -> None:
    from glmasr.training.clusters import make_clusters

    make_clusters(config)


if __name__ == "__main__":
    open_door("clusters", clusters)
