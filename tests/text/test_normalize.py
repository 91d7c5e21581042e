"""The scoring protocol: what counts as the same word, what is a unit, and that nobody changes it in silence."""

import hashlib
import json
import random
import time
import unicodedata
from pathlib import Path

import pytest
from whisper_normalizer.english import EnglishTextNormalizer

from glmasr.text import normalize as protocol
from glmasr.text.normalize import PROTOCOL, metrics_for, normalize, units

CANTONESE = "佢嘅咗喺冇嚟唔嗰啲噉咁嘢瞓畀俾攞𨋢餸諗揾嗌嘥冧冚唪唥掟揸掂睇嬲攰啱㗎喎囉嚿氹孖嘈嗱噃啩咋吖嘞咩乜晒哋係"

PINNED = [
    ("Mr. Brown’s colour, um, can't be  TWENTY-one!", "en", "mister brown s color can not be 21"),
    ("  L'été, déjà?  ", "fr", "l été déjà"),
    ("你好，世界！ＡＢＣ　１２", "zh", "你好 世界 abc 十二"),
    ("Don't 佢哋「去」咗。", "yue-HK", "dont 佢哋 去 咗"),
    ("看著臺灣的頭髮，妳後來瞭解計畫嗎", "zh", "看着台湾的头发 你后来了解计划吗"),
    ("乾隆、乾淨、幹部、皇后", "cmn-Hant", "干隆 干净 干部 皇后"),
    ("你系唔系喺里面食面", "yue", "你係唔係喺裏面食面"),
    ("你係唔係喺裡面食麵", "yue", "你係唔係喺裏面食面"),
    ("嗰啲書唔見咗", "yue", "嗰啲書唔見咗"),
    ("2026年3月15日，２０２６ 年", "zh", "二零二六年三月十五日 二零二六 年"),
    ("二〇二六年、二○○八年", "zh", "二零二六年 二零零八年"),
    ("一起 一些 万一 十分 千万 第一", "zh", "一起 一些 万一 十分 千万 第一"),
    ("两百、200、兩百", "zh", "二百 二百 二百"),
    ("第3名，1,200元，3.5%，5 %，设定29°C", "zh", "第三名 一千二百元 百分之三点五 百分之五 设定二十九度"),
    ("007 12345678 1,234,567 12000000", "zh", "零零七 一二三四五六七八 一百二十三万四千五百六十七 一千二百万"),
    ("幺幺零 110 v2.0", "zh", "一一零 一百一十 v2 零"),
    ("用mp3听5G的iPhone 15", "zh", "用mp3听5g的iphone 十五"),
    ("嗯，我呃想 um 买 umbrella 啊", "zh", "我 想 买 umbrella 啊"),
    ("嗯，佢呃我喎，5 hmm", "yue", "佢呃我喎 五"),
    ("...", "zh", ""),
]

AS_WHISPER = [
    (
        "I'm a little teapot, short and stout. Tip me over and pour me out!",
        "i am a little teapot short and stout tip me over and pour me out",
    ),
    ("Dr. Lee won't come; she'd've told us.", "doctor lee will not come she would have told us"),
    ("Hmm, [laughs] it's (softly) fine, uh, isn't it?", "it is fine is not it"),
    ("sixty four thousand three hundred and five", "64305"),
    ("the nineteen eighties", "the 1980s"),
    ("on may twenty first nineteen eighty four", "on may 21st 1984"),
    ("three point one four", "3.14"),
    ("fifty five percent", "55%"),
    ("six dollars and twenty five cents", "$6.25"),
    ("gonna organise the grey theatre", "going to organize the gray theater"),
]
"""The first is the package's own example; the others walk through the rules of the Whisper paper's appendix C."""


def real_texts(corpora: Path, every: int) -> list[tuple[str, str]]:
    rows = [
        json.loads(line) for path in sorted(corpora.glob("*/manifest.jsonl")) for line in path.read_text().splitlines()
    ]
    return [(row["text"], row["lang"]) for row in rows if row.get("text")][::every]


def made_texts(number: int) -> list[str]:
    """Code points of all planes among those that the rules look at."""
    rng = random.Random(0)
    hot = "0123456789.,%年°cCaAüUuMmhHé'’-−_:;()（）１２３％〇○两兩幺么零一二百万嗯呃啊著妳乾"
    hot += "\u0301\u0307\u030cJİϓẞ\ud800\u200b\u3000½①٣ⅧＡ"
    return [
        "".join(
            rng.choice(hot) if rng.random() < 0.8 else chr(rng.randrange(0x110000)) for _ in range(rng.randint(1, 12))
        )
        for _ in range(number)
    ]


@pytest.mark.parametrize(("text", "language", "expected"), PINNED)
def test_pinned_outputs(text, language, expected):
    assert normalize(text, language) == expected


def test_the_rules_change_only_with_the_version():
    """Whoever changes PINNED, the text or the tables gives the protocol a new number, and says what changed."""
    rules = repr((PROTOCOL, protocol.SAME, protocol.HONG_KONG, protocol.HESITATION, protocol.NUMBER.pattern, PINNED))
    assert PROTOCOL.startswith("glmasr scoring 3:")
    assert hashlib.sha256(rules.encode()).hexdigest()[:16] == "ce30df0d5830d78d"


@pytest.mark.parametrize(("text", "expected"), AS_WHISPER)
def test_english_is_whispers(text, expected):
    assert normalize(text, "en-US") == expected


def test_english_is_the_package_on_real_texts(shared_corpora):
    package = EnglishTextNormalizer()
    texts = [text for text, language in real_texts(shared_corpora, 5) if language == "en"]
    assert len(texts) > 500
    assert [text for text in texts if normalize(text, "en") != " ".join(package(text).split())] == []


def test_normalizing_real_texts_twice_changes_nothing(shared_corpora):
    """But Whisper's rules turn `...` into a word `.`, which a second time vanishes, and `three s` into 3s by steps."""
    texts = [(text, language) for text, language in real_texts(shared_corpora, 3) if "..." not in text]
    assert {language for _, language in texts} >= {"en", "zh", "yue"}
    again = [
        text for text, language in texts if normalize(normalize(text, language), language) != normalize(text, language)
    ]
    assert len(again) <= 1


@pytest.mark.parametrize("language", ["zh", "yue"])
def test_normalizing_anything_twice_changes_nothing(language):
    for text in made_texts(5000):
        once = normalize(text, language)
        assert normalize(once, language) == once, ascii(text)


def test_units_of_anything_are_units_again():
    for text in made_texts(3000):
        for metric in ("mer", "ser"):
            found = units(text, "en", metric)
            assert units(" ".join(found), "en", metric) == found, ascii(text)


def test_full_and_half_width_are_one():
    wide = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
    for text in ("Call me at 5:30, OK?", "打电话 10086 (免费)", "3.5% OFF"):
        for language in ("zh", "yue"):
            assert normalize(text.translate(wide), language) == normalize(text, language)


def test_scripts_are_one_for_mandarin_and_for_cantonese():
    for traditional, simplified in [
        ("這裡的麵後來發霉了", "这里的面后来发霉了"),
        ("衞生綫台臺裏", "卫生线台台里"),
        ("佢哋嘅書喺邊度嚟㗎", "佢哋嘅书喺边度嚟㗎"),
        ("隻狗係咪瞓緊覺", "只狗系咪瞓紧觉"),
    ]:
        for language in ("zh", "yue"):
            assert normalize(traditional, language) == normalize(simplified, language)


def test_cantonese_characters_stay():
    assert normalize(CANTONESE, "yue") == CANTONESE


def test_every_han_character_is_folded_once_and_for_both_scripts_alike():
    """One character in, one out, which stays as it is; what Simplified tells apart, the Hong Kong form does too."""
    planes = [(0x3007, 0x3008), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x31350)]
    han = {unicodedata.normalize("NFKC", chr(code)) for first, last in planes for code in range(first, last)}
    pairs = {character: (protocol._simplified(character), protocol._in_hong_kong(character)) for character in han}
    assert all(len(simple) == len(hong_kong) == 1 for simple, hong_kong in pairs.values())
    for simple, hong_kong in set(pairs.values()):
        assert pairs.get(simple, (simple,))[0] == simple and pairs[hong_kong] == (simple, hong_kong)


def test_numbers_are_read_as_they_are_said():
    for number, said in [
        *((0, "零"), (10, "十"), (15, "十五"), (20, "二十"), (101, "一百零一"), (110, "一百一十")),
        *((1001, "一千零一"), (1010, "一千零一十"), (10010, "一万零一十"), (10500, "一万零五百")),
        *((20000, "二万"), (110000, "十一万"), (120000000, "一亿二千万")),
    ]:
        assert normalize(f"有{number}个", "zh") == f"有{said}个"
    assert normalize("1" + "0" * 16, "zh") == "一" + "零" * 16
    rng = random.Random(0)
    for length in range(1, 40):
        digits = "".join(rng.choices("0123456789", k=length))
        assert not set(normalize(f"{digits}.{digits} {digits}%", "yue")) & set("0123456789.%")


def test_no_word_with_a_numeral_in_it_is_touched():
    words = "一起 一些 一样 第一 万一 十分 千万 百姓 四川 三心二意 七上八下 五金 统一 一点点 老百姓 九寨沟"
    assert normalize(words, "zh") == words


def test_units_of_words_and_characters():
    assert units("A red, red rose", "en", "wer") == ["a", "red", "red", "rose"]
    assert units("A red", "en", "cer") == list("ared")
    assert units("我用iPhone 打电话𠮷。", "zh", "wer") == ["我", "用", "iphone", "打", "电", "话", "𠮷"]
    assert units("我 用 OK", "zh", "cer") == ["我", "用", "o", "k"]
    assert all(units(text, "yue", metric) == [] for text in ("", " ", "?!") for metric in protocol.METRICS)


def test_mixed_units_are_the_same_under_every_tag():
    assert units("I'd like 叉燒飯, OK? 3 個！", "en", "mer") == ["id", "like", "叉", "烧", "饭", "ok", "三", "个"]
    assert units("唔該 check-in 呃 um", "yue", "mer") == ["唔", "該", "check", "in", "呃"]
    for text in ["我想book一間酒店，uh，3 nights", "佢哋嘅 meeting 喺 9:30", *made_texts(500)]:
        english, mandarin, cantonese, none = (units(text, language, "mer") for language in ("en", "zh", "yue-HK", ""))
        assert english == mandarin == none
        assert units(" ".join(cantonese), "zh", "mer") == english


def test_syllables_keep_their_tone_under_every_tag():
    for language in ("en", "zh", "yue", "", "fr"):
        assert units("Gam1, jat6! nei5hou2", language, "ser") == ["gam1", "jat6", "nei5", "hou2"]
        read = {"zh": "hao3", "yue": "hou2"}.get(language, "好")
        assert units("lü4 lu:4 ma0 xi1'an1 好 mp34", language, "ser") == [
            "lv4",
            "lv4",
            "ma5",
            "xi1",
            "an1",
            read,
            "mp34",
        ]


def test_characters_are_read_aloud_beside_syllables():
    assert units("銀行 OK", "zh-CN", "ser") == ["yin2", "hang2", "ok"]
    assert units("你好，ngo5。", "yue", "ser") == ["nei5", "hou2", "ngo5"]


@pytest.mark.parametrize(
    ("language", "references", "metrics"),
    [
        ("en", ["plain words", "more of them"], "wer cer"),
        ("zh", ["你好", "T恤"], "cer wer ser"),
        ("en", ["我想book酒店", *["hello"] * 50], "wer cer mer"),
        ("zh", ["我想book酒店", *["你好"] * 150], "cer wer ser"),
        ("ja", ["東京 tower"], "wer cer"),
        ("yue", ["taak1", "nei5 hou2, gam1jat6!", "lü4"], "ser wer cer"),
        ("en", ["nei5 hou2"] * 19 + ["一"], "ser wer cer"),
        ("yue", ["nei5 hou2", "你好"], "cer wer ser"),
        ("en", ["b747", "mp3 player"], "wer cer"),
        ("zh", [], "cer wer ser"),
    ],
)
def test_metrics_fit_the_references(language, references, metrics):
    assert metrics_for(language, references) == tuple(metrics.split())


def test_metrics_of_real_corpora(shared_corpora):
    found = [("cantonese_syllables", "yue", "ser wer cer"), ("aishell_sample", "zh", "cer wer mer ser")]
    for name, language, metrics in found:
        rows = [json.loads(line) for line in (shared_corpora / name / "manifest.jsonl").read_text().splitlines()]
        assert metrics_for(language, [row["text"] for row in rows]) == tuple(metrics.split())


def test_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="wer, cer, mer, ser, not 'per'"):
        units("a", "en", "per")


def test_ten_thousand_utterances_take_seconds():
    rng = random.Random(0)
    alphabet = (
        "的一是在不了有和人這中大為上個國我以要他時來用們生到作地於出就分對成會可主發年動同工也能下過子說產種面而方後"
    )
    texts = ["".join(rng.choices(alphabet, k=20)) + f"，{rng.randrange(10**5)} OK" for _ in range(10_000)]
    for language in ("zh", "yue"):
        start = time.perf_counter()
        for text in texts:
            units(text, language, "wer")
        assert time.perf_counter() - start < 5
