"""A chain: every damage in its order and by its own dice, reached by name from a command."""

import numpy as np
import pytest

from glmasr.augment.chain import Chain
from glmasr.augment.clipping import Clipping
from glmasr.augment.noise import NoiseMixing
from glmasr.augment.reverb import Rooms
from glmasr.augment.telephone import Telephone
from glmasr.augment.volume import Level, Volume
from glmasr.build import build
from glmasr.speech import InputError
from tests.small import composed

DAMAGES = {
    "noise": NoiseMixing(5.0, 10.0, 1.0, None),
    "clipping": Clipping(0.01, 0.02, 1.0),
    "telephone": Telephone(1.0),
    "level": Level(-50.0, -20.0, 1.0, True),
}


@pytest.fixture
def clip(spoken) -> np.ndarray:
    return spoken[3].numpy()


def test_a_chain_is_its_links_one_after_another(clip):
    rng = np.random.default_rng(4)
    wanted = clip
    for damage in DAMAGES.values():
        wanted = damage(wanted, rng)
    np.testing.assert_array_equal(Chain(DAMAGES)(clip, np.random.default_rng(4)), wanted)
    backwards = Chain(dict(reversed(DAMAGES.items())))(clip, np.random.default_rng(4))
    assert not np.array_equal(backwards, wanted)


def test_each_draws_for_itself(clip):
    halves = Chain({"up": Volume(20.0, 20.0, 0.5), "down": Volume(-40.0, -40.0, 0.5)})
    ones, rng = np.ones(3, np.float32), np.random.default_rng(0)
    gains = [round(20 * np.log10(halves(ones, rng)[0])) for _ in range(400)]
    assert set(gains) == {-40, -20, 0, 20} and all(70 < gains.count(gain) < 130 for gain in set(gains))


def test_seed_probability_and_silence(clip):
    chain = Chain(DAMAGES)
    first, again, other = (chain(clip, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.dtype == np.float32 and first.shape == clip.shape and np.isfinite(first).all()
    assert not chain(np.zeros(900, np.float32), np.random.default_rng(0)).any()
    never = Chain({"noise": NoiseMixing(5.0, 10.0, 0.0, None), "telephone": Telephone(0.0), "left out": None})
    assert never(clip, np.random.default_rng(0)) is clip


def test_a_command_reaches_every_damage_by_name(clip, tmp_path):
    inside = "augment.noise.augmentations"
    config = composed(
        "pretrain", "augment=robust", f"{inside}.noise.probability=0.25", f"{inside}.reverb.rooms.count=2",
        f"{inside}.reverb.rooms.folder={tmp_path}", f"{inside}.clipping=null",
    )  # fmt: skip
    chain = build(config["augment"])["noise"]
    assert list(chain.augmentations) == ["reverb", "noise", "clipping", "telephone", "level"]
    assert chain.augmentations["noise"].probability == 0.25 and chain.augmentations["clipping"] is None
    assert isinstance(chain.augmentations["reverb"].rooms, Rooms)
    heard = [chain(clip, np.random.default_rng(seed)) for seed in range(20)]
    assert all(one.shape == clip.shape and one.dtype == np.float32 and np.isfinite(one).all() for one in heard)
    assert len({one.tobytes() for one in heard}) > 8


def test_a_command_reaches_a_fine_tunings_damages_too():
    inside = "augment.augmentations.2.augmentations"
    config = composed("finetune", "augment=robust_finetune", f"{inside}.noise.probability=0.3")
    speed, pause, chain = build(config["augment"])["augmentations"]
    assert chain.augmentations["noise"].probability == 0.3 and speed.probability == 1.0 and pause.probability == 0.5


@pytest.mark.parametrize("wrong", [[Telephone(1.0)], {"noise": {"probability": 0.3}}])
def test_what_is_no_chain_is_an_input_error(wrong):
    with pytest.raises(InputError, match="chain"):
        Chain(wrong)
