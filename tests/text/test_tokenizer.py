"""Text to ids and back, in two languages, through a folder and with what was never seen."""

import json

import pytest

from glmasr.data.rhyme_test import read_words
from glmasr.speech import InputError
from glmasr.text.tokenizer import (
    BLANK,
    BOUNDARY,
    SPECIAL,
    UNKNOWN,
    CharacterTokenizer,
    PieceTokenizer,
    learn_characters,
    learn_pieces,
    open_tokenizer,
    plain,
)

ENGLISH = [f"please select the word {word}" for row in read_words() for word in row]
CHINESE = [
    "设定二十九度",
    "今天天气怎么样",
    "请打开客厅的灯",
    "我们明天早上八点见面",
    "北京 的 天气",
    "播放 周杰伦 的歌",
]
TOKENIZERS = {
    "characters": lambda texts: learn_characters(texts),
    "pieces": lambda texts: learn_pieces(texts, 360),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("texts", [ENGLISH, CHINESE, ENGLISH + CHINESE], ids=["english", "chinese", "both"])
def test_what_is_encoded_is_decoded_also_after_a_folder(kind, texts, tmp_path):
    learned = TOKENIZERS[kind](texts)
    learned.save(tmp_path)
    opened = open_tokenizer(tmp_path)
    assert type(opened) is type(learned) and opened.size == learned.size
    for text in texts:
        tokens = learned.encode(text)
        assert learned.decode(tokens) == text and opened.encode(text) == tokens and opened.decode(tokens) == text
        assert min(tokens) >= SPECIAL and max(tokens) < learned.size


def test_real_transcripts_come_back(shared_corpora):
    for corpus, size in (("librispeech_mini", 400), ("aishell_sample", 2000)):
        lines = (shared_corpora / corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        for tokenizer in (learn_characters(texts), learn_pieces(texts, size)):
            assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == [plain(text) for text in texts]


def test_text_is_made_plain_first():
    assert plain("  Ｈｅｌｌｏ\tWORLD \n") == "hello world"
    tokenizer = learn_characters(["Hello World"])
    assert tokenizer.characters == sorted(set("hello world"))
    assert tokenizer.encode("HELLO   world") == tokenizer.encode("hello world")


def test_a_character_never_seen_is_unknown_and_a_rare_one_can_be():
    tokenizer = learn_characters(["aab", "ac"], minimum_count=2)
    assert tokenizer.characters == ["a"] and tokenizer.encode("abé") == [SPECIAL, UNKNOWN, UNKNOWN]


def test_pieces_fall_back_on_bytes():
    tokenizer = learn_pieces(ENGLISH, 300)
    tokens = tokenizer.encode("naïve 你好")
    assert UNKNOWN not in tokens and tokenizer.decode(tokens) == "naïve 你好"


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_special_tokens_are_not_text(kind):
    tokenizer = TOKENIZERS[kind](ENGLISH)
    tokens = tokenizer.encode("select the word")
    assert tokenizer.decode([BOUNDARY, *tokens[:2], BLANK, *tokens[2:], UNKNOWN, BOUNDARY]) == "select the word"
    assert tokenizer.decode([]) == "" and tokenizer.encode("") == []
    assert not any(tokenizer.starts_word(token) for token in (BLANK, UNKNOWN, BOUNDARY))


def test_words_start_at_a_space_an_ideograph_or_a_marked_piece():
    characters = learn_characters(ENGLISH + CHINESE)
    starts = [characters.starts_word(token) for token in characters.encode("we 天气")]
    assert starts == [False, False, True, True, True]
    pieces = learn_pieces(ENGLISH, 300)
    assert sum(pieces.starts_word(token) for token in pieces.encode("please select the word went")) == 5


def test_sizes_count_the_special_tokens():
    assert CharacterTokenizer("ab").size == SPECIAL + 2
    small, large = learn_pieces(ENGLISH, 300), learn_pieces(ENGLISH, 340)
    assert small.size < large.size and isinstance(learn_pieces(ENGLISH, 5000), PieceTokenizer)
    assert small.decode([small.size - 1]) and small.pieces.get_piece_size() == small.size - SPECIAL + 1


@pytest.mark.parametrize("texts", [[], ENGLISH])
def test_text_that_does_not_fit_the_size_is_an_input_error(texts):
    with pytest.raises(InputError, match="50 pieces"):
        learn_pieces(texts, 50)
