"""make language_model: see conf/language_model.yaml for what it takes and glmasr/decoding/ngram.py for what it does."""

from door import open_door


def language_model(config: dict) -> None:
    from glmasr.decoding.ngram import build_language_model

    print(build_language_model(config))


if __name__ == "__main__":
    open_door("language_model", language_model)
