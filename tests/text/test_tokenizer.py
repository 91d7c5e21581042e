"""Text to ids and back, in two languages, through a folder and with what was never seen."""

import io
import json

import numpy as np
import pytest
import sentencepiece
import torch

from glmasr.bundle import open_bundle
from glmasr.data.catalog import write_catalog
from glmasr.data.dataset import SpeechDataset, collate
from glmasr.data.rhyme_test import read_words
from glmasr.decoding.hypothesis import Hypothesis
from glmasr.frontend.audio import write_audio
from glmasr.speech import InputError, Transcript, Utterance
from glmasr.text.subtitles import write_srt
from glmasr.text.tokenizer import (
    BLANK,
    BOUNDARY,
    SPECIAL,
    UNKNOWN,
    CharacterTokenizer,
    MixedTokenizer,
    PieceTokenizer,
    SyllableTokenizer,
    learn_characters,
    learn_mixed,
    learn_pieces,
    learn_syllables,
    open_tokenizer,
    plain,
)
from glmasr.training.finetune import Finetuning
from glmasr.training.start import feasible
from glmasr.transcriber import Transcriber
from tests.small import random_bundle

ENGLISH = [f"please select the word {word}" for row in read_words() for word in row]
CHINESE = [
    "设定二十九度",
    "今天天气怎么样",
    "请打开客厅的灯",
    "我们明天早上八点见面",
    "北京 的 天气",
    "播放 周杰伦 的歌",
]
CANTONESE = ["今日去 central 食 lunch 好唔好 ok", "佢哋喺邊度呀𠺘", "我嘅 email 係咩嚟㗎", "唔該借借"]
SYLLABLES = ["nei5 hou2", "gwong2 dung1 waa2", "ngo5 hai6 m4 ok", "aa1"]
LANGUAGES = ("yue", "en", "zh-CN", "")
TOKENIZERS = {
    "characters": lambda texts: learn_characters(texts),
    "pieces": lambda texts: learn_pieces(texts, 360),
    "mixed": lambda texts: learn_mixed(texts, 100, 1, True, LANGUAGES),
}


def untagged(texts: list[str], size: int = 100) -> MixedTokenizer:
    """Every Han character that occurs, and no tags."""
    return learn_mixed(texts, size, 1, False, LANGUAGES)


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
        for tokenizer in (learn_characters(texts), learn_pieces(texts, size), untagged(texts), untagged(texts[:50])):
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
    with pytest.raises(InputError, match="no SentencePiece model of 500 pieces"):
        learn_pieces([])


def test_too_many_characters_for_the_pieces_name_the_size_that_does(shared_corpora):
    lines = (shared_corpora / "aishell_sample" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    with pytest.raises(InputError, match=r"500 pieces do not hold .* or take tokenizer=mixed") as raised:
        learn_pieces(texts)
    needed = int(str(raised.value).split("tokenizer.size to ")[1].split()[0])
    with pytest.raises(InputError, match=f"tokenizer.size to {needed} or more"):
        learn_pieces(texts, needed - 1)
    assert learn_pieces(texts, needed).size <= needed + SPECIAL - 1


@pytest.mark.parametrize("learned_from", [ENGLISH, CHINESE, CANTONESE, ENGLISH + CHINESE + CANTONESE, ["a"], [""], []])
def test_mixed_text_comes_back_whatever_was_seen(learned_from):
    tokenizer = untagged(learned_from)
    made = [
        "ok𠺘",
        "a▁b ▁",
        "食 lunch好",
        "naïve 𠮷野家 ½ 🙂 한국",
        "(好)。《再見》",
        "今日",
        "x",
        "",
        "\u200d好 \ufe0f",
    ]
    for text in [*ENGLISH, *CHINESE, *CANTONESE, *made]:
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == plain(text)
        assert all(SPECIAL <= token < tokenizer.size for token in tokens)


def test_text_drawn_at_random_comes_back():
    tokenizer, rng = untagged(ENGLISH + CANTONESE), np.random.default_rng(0)
    letters = list("abc  ▁'，。嘅咗喺佢𠺘今日éßİ한カ\u0301½")
    for _ in range(500):
        text = "".join(rng.choice(letters, rng.integers(0, 12)))
        assert tokenizer.decode(tokenizer.encode(text)) == plain(text)


def test_every_han_character_seen_is_one_token_and_a_rare_or_new_one_its_bytes():
    tokenizer = untagged(CANTONESE)
    assert len(tokenizer.encode("嘅喺佢𠺘今")) == 5
    new = tokenizer.encode("咗")
    assert tokenizer.decode(new) == "咗" and [tokenizer.spelling[t] for t in new] == [b"\xe5", b"\x92", b"\x97"]
    rare = learn_mixed(["好好壞 ok"], 10, 2, False)
    assert rare.characters == ["好"] and len(rare.encode("壞")) == 3 and rare.decode(rare.encode("好壞")) == "好壞"


def test_text_that_is_not_han_is_cut_as_sentencepiece_cuts_it():
    """Trained with its own marks on plain sentences, it finds the very pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH),
        model_writer=model,
        vocab_size=100,
        hard_vocab_limit=False,
        character_coverage=0.9995,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ours = untagged([*ENGLISH, "好好學習"])
    for text in ENGLISH:
        pieces = [ours.spelling[token].decode().replace(" ", "▁") for token in ours.encode(text)]
        assert pieces == theirs.encode(text, out_type=str) and len(pieces) < 0.7 * len(text)
    assert ours.encode("好 " + ENGLISH[0])[1:] == ours.encode(ENGLISH[0])


def test_a_language_is_the_first_token_and_no_text():
    tokenizer = TOKENIZERS["mixed"](CANTONESE + ENGLISH)
    bare = tokenizer.encode("食 lunch")
    assert tokenizer.languages == ["en", "yue", "zh"] and tokenizer.language_of(bare) == ""
    for language, named in {"en": "en", "yue": "yue", "zh-TW": "zh", "EN_us": "en"}.items():
        tokens = tokenizer.encode("食 lunch", language)
        assert tokens[1:] == bare and tokenizer.decode(tokens) == "食 lunch" and tokenizer.language_of(tokens) == named
        assert tokenizer.decode([BLANK, *bare, tokens[0], UNKNOWN]) == "食 lunch"
        assert tokenizer.language_of([BOUNDARY, BLANK, *bare, tokens[0]]) == named
        assert not tokenizer.starts_word(tokens[0])
    assert tokenizer.encode("食 lunch", "fr") == bare == tokenizer.encode("食 lunch", "")
    assert tokenizer.encode("", "en") == [tokenizer.tags["en"]] and tokenizer.language_of([-1, -1]) == ""
    without = untagged(CANTONESE + ENGLISH)
    assert without.size == tokenizer.size - 3 and without.language_of(without.encode("食", "yue")) == ""


def test_the_others_know_no_languages():
    for tokenizer in (learn_characters(ENGLISH), learn_pieces(ENGLISH, 300), syllabic(SYLLABLES)):
        tokens = tokenizer.encode("ok word", "en")
        assert tokens == tokenizer.encode("ok word") and tokenizer.language_of(tokens) == ""


def test_any_tokens_of_a_mixed_vocabulary_can_be_written():
    tokenizer, rng = TOKENIZERS["mixed"](CANTONESE + ENGLISH), np.random.default_rng(1)
    for _ in range(300):
        text = tokenizer.decode(rng.integers(0, tokenizer.first_piece, 8).tolist())
        text.encode()
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text)
    lead = tokenizer.encode("咗")[:2]
    assert tokenizer.decode([*lead, *tokenizer.encode("好")]).endswith("好") and tokenizer.decode(lead) == "\ufffd"


def test_mixed_words_start_at_spaces_and_han_characters_known_or_not():
    tokenizer = untagged(ENGLISH + CANTONESE)
    tokens = tokenizer.encode("今日 word 咗naïve 𠮷")
    words: list[list[int]] = []
    for token in tokens:
        words = [*words, [token]] if tokenizer.starts_word(token) else [*words[:-1], [*words[-1], token]]
    assert [said for said in (tokenizer.decode(word).strip() for word in words) if said] == [
        "今",
        "日",
        "word",
        "咗naïve",
        "𠮷",
    ]


def test_a_mixed_vocabulary_of_chinese_alone_needs_no_pieces(tmp_path):
    tokenizer = untagged(["今日", "好"])
    assert tokenizer.model is None and tokenizer.size == SPECIAL + 256 + 3
    tokenizer.save(tmp_path)
    assert not (tmp_path / "tokenizer.model").exists()
    opened = open_tokenizer(tmp_path)
    assert opened.size == tokenizer.size and opened.decode(opened.encode("今日 ok")) == "今日 ok"


def syllabic(texts: list[str], romanize: str | None = None, parts: bool = True) -> SyllableTokenizer:
    """Every unit that occurs."""
    return learn_syllables(texts, romanize, parts, 1)


@pytest.mark.parametrize("parts", [True, False])
@pytest.mark.parametrize("romanize", [None, "pinyin", "jyutping"])
def test_syllables_are_encoded_and_decoded_also_after_a_folder(romanize, parts, tmp_path):
    texts = CANTONESE + CHINESE if romanize else SYLLABLES
    learned = syllabic(texts, romanize, parts)
    learned.save(tmp_path)
    opened = open_tokenizer(tmp_path)
    assert isinstance(opened, SyllableTokenizer) and vars(opened) == vars(learned)
    for text in texts:
        tokens = opened.encode(text)
        assert UNKNOWN not in tokens and opened.decode(tokens) == learned.reference(text)
        spoken = [token for token in tokens if opened.starts_word(token)]
        assert len(spoken) == len(learned.reference(text).split())


def test_a_syllable_is_one_token_or_its_parts_and_a_word_its_letters():
    whole, split = syllabic(SYLLABLES, parts=False), syllabic(SYLLABLES)
    assert [whole.units[t - SPECIAL] for t in whole.encode("gwong2 ok")] == [" gwong2", " o", "k"]
    assert [split.units[t - SPECIAL] for t in split.encode("gwong2 ok aa1")] == [" gw", "ong2", " o", "k", " aa1"]
    assert whole.reference("Gwong2, OK!") == "gwong2 ok"


def test_an_unseen_syllable_is_unknown_unless_its_parts_are_known():
    whole, split = syllabic(SYLLABLES, parts=False), syllabic(SYLLABLES)
    assert whole.encode("nei5 gwou2 hou2").count(UNKNOWN) == 1 and whole.decode(whole.encode("nei5 gwou2 hou2")) == (
        "nei5 hou2"
    )
    assert split.decode(split.encode("gwou2")) == "gwou2" and split.encode("zyut6 xx") == [UNKNOWN] * 4
    assert whole.reference("nei5 gwou2") == "nei5 gwou2"
    assert learn_syllables(["aa1 aa1 aa2"], None, False, 2).units == [" aa1"]


def test_characters_are_read_out_before_they_are_syllables():
    pinyin, jyutping = syllabic(CHINESE, "pinyin", False), syllabic(CANTONESE, "jyutping", False)
    assert pinyin.decode(pinyin.encode("北京天气")) == "bei3 jing1 tian1 qi4" == pinyin.reference("北京天气")
    assert jyutping.reference("今日 OK") == "gam1 jat6 ok" and len(jyutping.encode("今日 ok")) == 4
    with pytest.raises(InputError, match=r"tokenizer\.romanize=jyutping"):
        syllabic(CANTONESE)


def test_syllables_may_follow_the_tag_of_their_language(tmp_path):
    languages = ("zh-CN", "yue", "en", "")
    learned = learn_syllables([*CHINESE, *SYLLABLES, "red"], "pinyin", True, 1, tags=True, languages=languages)
    learned.save(tmp_path)
    opened = open_tokenizer(tmp_path)
    assert opened.languages == ["en", "yue", "zh"] and vars(opened) == vars(learned)
    for text, language in ((CHINESE[0], "zh"), (SYLLABLES[0], "yue"), ("red", "en")):
        tokens = opened.encode(text, language)
        assert opened.language_of(tokens) == language and opened.decode(tokens) == opened.reference(text)
        assert opened.encode(text) == tokens[1:] and opened.language_of(tokens[1:]) == ""
        assert not opened.starts_word(tokens[0]) and opened.starts_word(tokens[1])


EXTENDED = {
    "characters": lambda texts, tags: learn_characters(texts),
    "pieces": lambda texts, tags: learn_pieces(texts, 360),
    "mixed": lambda texts, tags: learn_mixed(texts, 100, 1, tags, ["en"]),
    "syllables": lambda texts, tags: learn_syllables(texts, "jyutping", False, 1, tags, ["en"]),
}


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("kind", EXTENDED)
def test_an_extended_vocabulary_goes_on_from_the_old(kind, tags, tmp_path):
    old = EXTENDED[kind]([*ENGLISH, "今日"], tags)
    extension = old.extended([*CANTONESE, *ENGLISH], ["yue", "en", ""])
    new, origins = extension.tokenizer, extension.origins
    assert type(new) is type(old) and len(origins) == new.size == old.size + extension.added
    assert [token for token in origins if token >= 0] == list(range(old.size))  # each once, in order
    for text in [*ENGLISH, "今日"]:
        assert [origins[token] for token in new.encode(text, "en")] == old.encode(text, "en")
    new.save(tmp_path)
    opened = open_tokenizer(tmp_path)
    for text in CANTONESE:
        tokens = opened.encode(text, "yue")
        assert UNKNOWN not in tokens and opened.decode(tokens) == old.reference(text)
        assert opened.language_of(tokens) == ("yue" if tags and kind in ("mixed", "syllables") else "")
        assert all(old.starts_word(o) == new.starts_word(t) for t, o in enumerate(origins) if o >= 0)
    again = new.extended([*CANTONESE, *ENGLISH], ["yue", "en"])
    assert again.added == 0 and again.origins == tuple(range(new.size))


def test_an_extended_mixed_vocabulary_has_a_token_for_each_new_han_character_and_bytes_for_letters():
    old = untagged(["ok 好"])
    new = old.extended(["嘅é好", "佢嘅"]).tokenizer
    assert isinstance(new, MixedTokenizer) and new.characters == ["好", "佢", "嘅"]
    assert len(old.encode("嘅")) == 3 and len(new.encode("嘅")) == 1 and new.decode(new.encode("嘅é")) == "嘅é"
    assert learn_pieces(ENGLISH, 300).extended(CANTONESE).added == 0


@pytest.mark.parametrize(
    "content", ['{"kind": "runes"}', '{"kind": "mixed", "languages": []}', '{"kind": "syllables"}']
)
def test_a_bundle_of_a_kind_not_known_or_cut_is_an_input_error(content, tmp_path):
    random_bundle(tmp_path / "b", untagged(["a b"]))
    (tmp_path / "b" / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="is damaged"):
        open_bundle(tmp_path / "b")


def test_tokenizers_of_earlier_versions_open(tmp_path):
    """As they were written before there were languages and syllables."""
    (tmp_path / "tokenizer.json").write_text('{"kind": "characters", "characters": [" ", "a", "b"]}')
    assert open_tokenizer(tmp_path).encode("ab a") == [4, 5, 3, 4]
    (tmp_path / "tokenizer.model").write_bytes(learn_pieces(ENGLISH, 300).model)
    (tmp_path / "tokenizer.json").write_text('{"kind": "pieces"}')
    opened = open_tokenizer(tmp_path)
    assert isinstance(opened, PieceTokenizer) and opened.decode(opened.encode("went")) == "went"


@pytest.fixture
def catalog(tmp_path):
    """An utterance in each of two languages, and one in none."""
    rows = []
    for n, (text, language) in enumerate([("今日 ok", "yue"), ("please select", "en"), ("kit", "")]):
        path = tmp_path / f"{n}.wav"
        write_audio(path, np.random.default_rng(n).uniform(-0.5, 0.5, 16000).astype(np.float32))
        rows.append(Utterance(str(n), str(path), 1.0, text=text, language=language))
    return write_catalog(rows, tmp_path / "catalog")


def test_a_batch_has_the_tags_of_its_languages(catalog):
    tokenizer = learn_mixed(catalog.texts(), 30, 1, True, catalog.languages)
    batch = collate(SpeechDataset(catalog, tokenizer=tokenizer).__getitems__([(0, 0), (1, 0), (2, 0)]))
    assert batch.tokens is not None and batch.token_lengths is not None
    assert [tokenizer.language_of(row) for row in batch.tokens.tolist()] == ["yue", "en", ""]
    bare = [len(tokenizer.encode(text)) for text in catalog.texts()]
    assert batch.token_lengths.tolist() == [bare[0] + 1, bare[1] + 1, bare[2]]


def test_a_tag_needs_a_frame_of_its_own(tmp_path):
    """0.31 s are 7.75 frames, which hold six characters and a tag, or seven without."""
    texts = ["一二三四五六", "一二三四五六七"]
    rows = [Utterance(str(n), "a.wav", 0.31, text=text, language="zh") for n, text in enumerate(texts)]
    found = write_catalog(rows, tmp_path / "c")
    for tags, kept in ((True, texts[:1]), (False, texts)):
        assert feasible(found, learn_mixed(texts, 10, 1, tags, ["zh"])).texts() == kept


def test_a_transcript_names_the_language_most_of_it_is_in(tmp_path):
    tokenizer = learn_mixed(CANTONESE + ENGLISH, 100, 1, True, ["yue", "en"])
    random_bundle(tmp_path / "b", tokenizer, language="zh")
    system, said = Transcriber(str(tmp_path / "b"), vad=False), iter([])
    system.transcribe_pieces = lambda pieces: [  # type: ignore[method-assign]
        (system.segment(Hypothesis(tuple(tokens), -1.0), 1.0), tokenizer.language_of(tokens)) for tokens in next(said)
    ]
    yue, en, bare = tokenizer.encode("今日", "yue"), tokenizer.encode("word", "en"), tokenizer.encode("word")
    waveforms = [np.zeros(16000, np.float32)] * 4
    said = iter([[yue, en, bare, [tokenizer.tags["en"]]]])
    heard = system(waveforms)
    assert [t.language for t in heard] == ["yue", "en", "zh", "zh"] and [t.text for t in heard][2:] == ["word", ""]
    parts = [(system.segment(Hypothesis(tuple(t), -1.0), s), tokenizer.language_of(t)) for t, s in ((en, 1), (yue, 9))]
    assert system.transcript(9.0, parts).language == "yue"


@pytest.mark.parametrize("decoding", ["ctc_greedy", "ctc_beam"])
def test_a_transcriber_reads_the_tag_from_what_is_heard(decoding, tmp_path):
    tokenizer = learn_mixed(CANTONESE + ENGLISH, 100, 1, True, ["yue", "en"])
    random_bundle(tmp_path / "b", tokenizer, language="zh")
    system = Transcriber(str(tmp_path / "b"), decoding=decoding)
    tag = tokenizer.tags["yue"]
    head = system.recognizer.ctc  # which says nothing else
    torch.nn.init.zeros_(head.weight)
    head.bias.data = torch.full((tokenizer.size,), -9.0).scatter(0, torch.tensor([tag]), 9.0)
    (segment, language), *_ = system.transcribe_pieces([np.zeros(16000, np.float32)])
    assert (segment.text, segment.words, language) == ("", (), "yue")


def test_a_tag_is_no_word_of_a_subtitle(tmp_path):
    tokenizer = learn_mixed(CANTONESE + ENGLISH, 100, 1, True, ["yue", "en"])
    random_bundle(tmp_path / "b", tokenizer)
    tokens = tuple(tokenizer.encode("今 word 咗", "yue"))
    count = len(tokens)
    found = Hypothesis(tokens, -1.0, tuple(range(count)), tuple(range(1, count + 1)), (0.1, *[0.9] * (count - 1)))
    segment = Transcriber(str(tmp_path / "b")).segment(found, 9.0)
    assert segment.text == "今 word 咗" and [word.text for word in segment.words] == ["今", "word", "咗"]
    assert segment.start_seconds == segment.words[0].start_seconds and min(w.confidence for w in segment.words) == 0.9
    srt = write_srt(Transcript(segment.text, 9.0, (segment,), "yue"))
    assert srt.splitlines()[2] == "今 word 咗" and "yue" not in srt


def dev_errors(tokenizer, said: list[str], catalog, language: str = "en") -> dict:
    """What a validation counts where `said` was heard, without a model."""
    module = Finetuning.__new__(Finetuning)
    torch.nn.Module.__init__(module)
    module.tokenizer, module.language, module.errors = tokenizer, language, {"wer": [0, 0], "cer": [0, 0]}
    dataset = SpeechDataset(catalog, tokenizer=tokenizer)
    batch = collate(dataset.__getitems__([(row, 0) for row in range(len(said))]))
    module.count(batch, [tokenizer.decode(tokenizer.encode(text)) for text in said], "")
    return module.errors


def test_dev_error_compares_syllables_with_syllables(catalog):
    tokenizer = syllabic(catalog.texts(), "jyutping", False)
    right, wrong = ["今日 ok", "please select", "kit"], ["今 ok", "please select", "kit"]
    assert dev_errors(tokenizer, right, catalog, "yue")["wer"] == [0, 6]
    assert dev_errors(tokenizer, wrong, catalog, "yue")["wer"] == [1, 6]


def test_dev_error_follows_the_rules_of_the_language_that_the_tokens_name(catalog):
    """In Cantonese two characters are two words, in English one."""
    said = ["今 ok", "please select", "kit"]
    for tags, errors in ((True, [1, 6]), (False, [1, 5])):
        tokenizer = learn_mixed(catalog.texts(), 30, 1, tags, catalog.languages)
        assert dev_errors(tokenizer, said, catalog)["wer"] == errors
