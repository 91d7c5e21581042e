"""A damage done to a share of the utterances, and a share that is none."""

import numpy as np
import pytest

from glmasr.augment.clipping import Clipping
from glmasr.augment.noise import NoiseMixing
from glmasr.augment.pause import Pause
from glmasr.augment.reverb import Reverberation, Rooms
from glmasr.augment.speed import Speed
from glmasr.augment.talker import TalkerMixing
from glmasr.augment.telephone import Telephone
from glmasr.augment.volume import Level, Volume
from glmasr.augment.wordless import Wordless
from glmasr.build import build
from glmasr.speech import InputError
from tests.small import composed

DAMAGES = {
    "Clipping": lambda share: Clipping(0.01, 0.02, share),
    "NoiseMixing": lambda share: NoiseMixing(5.0, 10.0, share, None),
    "Pause": lambda share: Pause(0.25, -70.0, -40.0, share),
    "Reverberation": lambda share: Reverberation(share, "rooms", Rooms(8, 0.1, 0.8, 0.3, 4.0, 0, "rooms")),
    "Speed": lambda share: Speed(0.9, 1.1, share),
    "TalkerMixing": lambda share: TalkerMixing(-5.0, 20.0, share),
    "Telephone": lambda share: Telephone(share),
    "Volume": lambda share: Volume(-10.0, 10.0, share),
    "Level": lambda share: Level(-50.0, -20.0, share, True),
    "Wordless": lambda share: Wordless(share),
}


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("probability", [-0.1, 2.0, float("nan")])
def test_a_share_that_is_none_is_refused_in_one_sentence(name, probability):
    with pytest.raises(InputError, match=f"{name}'s probability of .* take one from 0 to 1"):
        DAMAGES[name](probability)
    DAMAGES[name](0.0), DAMAGES[name](1.0)


def test_a_command_is_refused_in_the_same_sentence():
    config = composed("pretrain", "augment.noise.probability=1.5")
    with pytest.raises(InputError, match=r"NoiseMixing.s probability of 1\.5 is no share"):
        build(config["augment"]["noise"])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_it_acts_on_that_share(share):
    damage, rng = Speed(0.9, 1.1, share), np.random.default_rng(0)
    assert np.mean([damage.acts(rng) for _ in range(2000)]) == pytest.approx(share, abs=0.03)
