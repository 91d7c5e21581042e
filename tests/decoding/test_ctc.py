"""Greedy CTC merges repeats and drops blanks; the beam sums alignments, as enumeration and flashlight have it."""

from itertools import groupby
from math import inf, log

import numpy as np
import pytest
import torch

from glmasr.build import build
from glmasr.decoding.ctc import SHORT, WIDE, beam_search, exact_scores, greedy, likeliest, search_one
from glmasr.decoding.hypothesis import Hypothesis
from glmasr.text.tokenizer import BLANK
from tests.decoding import brute
from tests.small import composed


def scores(path: list[int], size: int = 6, probability: float = 0.9) -> torch.Tensor:
    others = torch.full((len(path), size), (1 - probability) / (size - 1))
    return others.scatter(1, torch.tensor(path, dtype=torch.long)[:, None], probability).log()


def test_repeats_merge_unless_a_blank_lies_between():
    hypothesis = greedy(scores([0, 3, 3, 0, 3, 4, 4, 4, 0, 0, 5]))
    assert hypothesis.tokens == (3, 3, 4, 5)
    assert hypothesis.starts == (1, 4, 5, 10) and hypothesis.ends == (3, 5, 8, 11)
    assert hypothesis.score == pytest.approx(11 * torch.tensor(0.9).log().item(), rel=1e-5)


def test_the_confidence_is_that_of_the_surest_frame():
    log_probs = torch.cat([scores([3], probability=p) for p in (0.6, 0.8, 0.7)] + [scores([0, 4], probability=0.5)])
    assert greedy(log_probs).confidences == pytest.approx((0.8, 0.5))


@pytest.mark.parametrize("path", [[], [BLANK], [BLANK] * 5])
def test_blanks_alone_and_nothing_at_all_say_nothing(path):
    hypothesis = greedy(scores(path) if path else torch.zeros(0, 6))
    assert (hypothesis.tokens, hypothesis.starts, hypothesis.ends, hypothesis.confidences) == ((), (), (), ())


def test_on_random_scores_it_is_the_definition():
    log_probs = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    path, hypothesis = log_probs.argmax(-1).tolist(), greedy(log_probs)
    assert list(hypothesis.tokens) == [token for token, _ in groupby(path) if token != BLANK]
    assert hypothesis.score == pytest.approx(log_probs.amax(-1).sum().item(), rel=1e-5)
    for token, start, end in zip(hypothesis.tokens, hypothesis.starts, hypothesis.ends, strict=True):
        assert set(path[start:end]) == {token} and path[end : end + 1] != [token]


SHAPES = [(5, 4, seed, spread) for seed in range(6) for spread in (0.5, 1.5, 4.0)]


@pytest.mark.parametrize(("frames", "size", "seed", "spread"), SHAPES)
def test_a_wide_beam_is_the_enumeration_of_all_alignments(frames, size, seed, spread):
    log_probs = brute.scores(frames, size, seed, spread)
    expected = sorted(brute.texts(log_probs).items(), key=lambda one: -one[1])
    found = beam_search(log_probs[None], torch.tensor([frames]), beam=10_000, margin=inf)[0]
    assert len(found) == len(expected)
    assert [one.score for one in found] == pytest.approx([log(one) for _, one in expected], abs=1e-5)
    assert {one.tokens: one.score for one in found}[expected[0][0]] == pytest.approx(log(expected[0][1]), abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_a_narrow_beam_finds_the_best_and_its_scores_are_exact(seed):
    log_probs = brute.scores(6, 4, seed, 3.0)
    expected = brute.texts(log_probs)
    found = beam_search(log_probs[None], torch.tensor([6]), beam=16, margin=inf)[0]
    assert found[0].tokens == max(expected, key=expected.__getitem__) and len(found) <= 16
    assert [one.score for one in found] == pytest.approx([log(expected[one.tokens]) for one in found], abs=1e-5)


def plain_beam_search(log_probs: torch.Tensor, beam: int) -> dict[tuple[int, ...], float]:
    """The definition, without any shortcut: every state of the beam, (text, is a blank last), meets every token."""
    kept = {((), True): 1.0}
    for row in log_probs.double().exp().tolist():
        after: dict[tuple[tuple[int, ...], bool], float] = {}
        for (text, is_blank), mass in kept.items():
            for token, prob in enumerate(row):
                goes_on = not is_blank and text[-1:] == (token,)
                state = (text if token == BLANK or goes_on else (*text, token), token == BLANK)
                after[state] = after.get(state, 0.0) + mass * prob
        kept = dict(sorted(after.items(), key=lambda one: -one[1])[:beam])
    found: dict[tuple[int, ...], float] = {}
    for (text, _), mass in kept.items():
        found[text] = found.get(text, 0.0) + mass
    return {text: log(mass) for text, mass in found.items()}


@pytest.mark.parametrize(("spread", "beam"), [(0.3, 10), (1.0, 3), (3.0, 1), (3.0, 10)])
def test_its_shortcuts_lose_nothing(spread, beam):
    log_probs = brute.scores(60, 9, 3, spread)
    # Texts and masses alone: what beam_search returns is exact.
    tokens = likeliest(log_probs.numpy(), 8).tolist()
    found, scale = search_one(log_probs.double().exp().tolist(), tokens, 9, beam, None, inf)
    scored = {tuple(one.token for one in node.path()): log(node.total) + scale for node in found}
    assert scored == pytest.approx(plain_beam_search(log_probs, beam), abs=1e-4)


@pytest.mark.parametrize("spread", [0.5, 4.0])
@pytest.mark.parametrize("size", [2, 9, 70, 400])
def test_each_frame_has_its_likeliest_tokens_but_the_blank(size, spread):
    log_probs = brute.scores(30, size, 0, spread)
    expected = log_probs[:, 1:].topk(min(12, size - 1)).indices + 1
    assert likeliest(log_probs.numpy(), 12).tolist() == expected.tolist()


def test_as_many_tokens_are_tried_wherever_the_blank_stands():
    for blank in (0.7, 0.01):
        others = torch.tensor([0.4, 0.3, 0.2, 0.1]) * (1 - blank)
        log_probs = torch.cat([torch.tensor([blank]), others]).log()[None, None]
        found = beam_search(log_probs, [1], beam=10, tokens=2)[0]
        assert {one.tokens for one in found} == {(), (1,), (2,)}


@pytest.mark.parametrize("frames", [SHORT - 1, SHORT, SHORT + 1])
@pytest.mark.parametrize(("size", "seed"), [(3, 0), (3, 1), (30, 2), (WIDE - 1, 3), (WIDE, 4)])
def test_short_or_long_and_small_or_large_scores_are_exact(frames, size, seed):
    log_probs = brute.scores(frames, size, seed, 3.0)
    for one in beam_search(log_probs[None], [frames], 10)[0]:
        assert one.score == pytest.approx(brute.exact(log_probs, one.tokens), abs=1e-5)


def test_a_vocabulary_of_the_blank_alone_says_nothing():
    assert beam_search(torch.zeros(1, 4, 1), [4], 10)[0] == [Hypothesis((), 0.0)]


def test_a_guide_that_takes_more_than_the_margin_leaves_something():
    class Dislikes(Likes):
        ceiling = 0.0

        def extend(self, state, token):
            return (*state, token), -40.0

    log_probs = scores([3, 0, 4, 4], probability=1 - 1e-12).double()
    best = beam_search(log_probs[None], [4], 10, guide=Dislikes())[0][0]
    assert best.tokens == (4,)


def test_together_is_as_alone():
    log_probs = torch.stack([brute.scores(40, 30, seed, 4.0) for seed in range(3)])
    lengths = torch.tensor([40, 17, 0])
    together = beam_search(log_probs, lengths, 5)
    for row, length in enumerate(lengths.tolist()):
        assert beam_search(log_probs[row : row + 1, :length], lengths[row : row + 1], 5)[0] == together[row]
    assert together[2] == [Hypothesis((), 0.0)]


def test_long_recordings_do_not_underflow():
    log_probs = brute.scores(1500, 40, 0, 0.3)
    best = beam_search(log_probs[None], torch.tensor([1500]), 3)[0][0]
    assert len(best.tokens) > 100 and best.score == pytest.approx(brute.exact(log_probs, best.tokens), rel=1e-6)


@pytest.fixture(scope="module")
def real_scores(spoken_batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Real speech through a small model that was trained on nothing, sharpened."""
    torch.manual_seed(0)
    features, lengths = build(composed("finetune")["frontend"])(*spoken_batch)
    scores = torch.nn.Linear(features.shape[-1], 30)(features[:, ::4])
    return (6 * scores).log_softmax(-1).detach(), lengths // 4


@pytest.mark.parametrize("beam", [2, 10])
def test_flashlight_finds_nothing_better_in_real_speech(real_scores, beam):
    decoder = pytest.importorskip("torchaudio.models.decoder", exc_type=ImportError)
    log_probs, lengths = real_scores
    names = ["-", *(f"t{i}" for i in range(1, log_probs.shape[-1]))]
    options = {"blank_token": "-", "sil_token": "-", "unk_word": "t1", "log_add": True, "beam_threshold": 1e6}
    try:
        peer = decoder.ctc_decoder(None, names, nbest=1, beam_size=beam, **options)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"flashlight-text is not installed ({error})")
    ours = [one[0] for one in beam_search(log_probs, lengths, beam, tokens=30)]
    for row, (length, theirs) in enumerate(zip(lengths.tolist(), peer(log_probs.contiguous(), lengths), strict=True)):
        tokens = tuple(token for token in theirs[0].tokens.tolist() if token != BLANK)
        scores = [brute.exact(log_probs[row, :length], one) for one in (ours[row].tokens, tokens)]
        assert scores[0] >= scores[1] - 1e-3 and scores[0] == pytest.approx(ours[row].score, abs=1e-3)


class Likes:
    """A guide that gives so much for every 5 and takes so much for every end but behind a 5."""

    ceiling = 3.0

    def begin(self):
        return ()

    def extend(self, state, token):
        return (*state, token), 3.0 if token == 5 else -0.5

    def finish(self, state):
        return 0.0 if state[-1:] == (5,) else -2.0


def test_a_guide_counts_each_token_once_and_the_end():
    log_probs = brute.scores(5, 6, 0, 1.0)
    expected = {}
    for text, probability in brute.texts(log_probs).items():
        gain = sum(3.0 if token == 5 else -0.5 for token in text) + Likes().finish(text)
        expected[text] = log(probability) + gain
    found = beam_search(log_probs[None], torch.tensor([5]), 10_000, guide=Likes(), margin=inf)[0]
    assert {one.tokens: one.score for one in found} == pytest.approx(expected, abs=1e-5)
    assert beam_search(log_probs[None], torch.tensor([5]), 10, guide=Likes())[0][0].tokens == found[0].tokens


@pytest.mark.parametrize("frames", [0, 1, 2, 50, 300])
def test_exact_scores_are_those_of_torch(frames):
    log_probs = brute.scores(frames, 8, 0, 3.0)
    texts = [(), (3,), (3, 3), (5, 4, 3, 3, 5), (7,) * 40]
    found = exact_scores(log_probs.numpy(), texts)
    for text, score in zip(texts, found.tolist(), strict=True):
        expected = brute.exact(log_probs, text) if frames else (0.0 if not text else float("-inf"))
        assert score == pytest.approx(expected, abs=1e-6)


def test_what_is_far_behind_is_given_up_and_nothing_else():
    log_probs = brute.scores(40, 12, 0, 12.0)
    whole, near = (beam_search(log_probs[None], torch.tensor([40]), 50, margin=margin)[0] for margin in (inf, 2.0))
    assert len(near) < len(whole) and near[0] == whole[0]
    assert {one.tokens for one in whole if one.score > whole[0].score - 1.0} <= {one.tokens for one in near}


@pytest.mark.parametrize("seed", range(4))
def test_the_likeliest_tokens_are_found_whether_or_not_some_are_equal(seed):
    generator = np.random.default_rng(seed)
    frames = np.log(generator.dirichlet(np.ones(300), 50)).astype(np.float32)
    if seed % 2:
        frames = frames.round()  # most frames have several at the last place
    frames[:, 0] = 0.0
    for chosen in (likeliest(frames, 20), likeliest(frames, 200)):
        assert all(0 not in row and len(set(row)) == len(row) for row in chosen.tolist())
        np.testing.assert_array_equal(
            np.take_along_axis(frames, chosen, 1), -np.sort(-frames[:, 1:], 1)[:, : chosen.shape[1]]
        )
