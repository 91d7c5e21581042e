"""A bundle in, a folder that `transformers` opens out; and the model class it opens it with.

    from glmasr.exporting.huggingface import GlmasrForCTC
    model = GlmasrForCTC.from_pretrained(folder)

The class comes with glmasr, so nobody has to trust code that lies beside weights (`trust_remote_code`).
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCTC, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils.logging import disable_progress_bar

from glmasr.build import build
from glmasr.bundle import Bundle, build_recognizer
from glmasr.exporting.symbols import table
from glmasr.frontend.pipeline import Ear
from glmasr.model.recognizer import Heard
from glmasr.speech import RATE_HZ
from glmasr.text.tokenizer import CharacterTokenizer

TOKENIZER = "tokenizer"
"""The folder in the folder that `open_tokenizer` reads."""


class GlmasrConfig(PreTrainedConfig):
    """A bundle's config.yaml as config.json; `ear` and `recognizer` are what its parts are built from."""

    model_type = "glmasr"

    def __init__(
        self, ear: dict[str, Any] | None = None, recognizer: dict[str, Any] | None = None, vocab_size: int = 0, **more
    ):
        self.ear, self.recognizer, self.vocab_size = ear or {}, recognizer or {}, vocab_size
        super().__init__(**more)


class GlmasrForCTC(PreTrainedModel):
    """Encoder, CTC head and the attention decoder if there is one, with the ear in front: waveforms in."""

    config_class = GlmasrConfig
    main_input_name = "input_values"

    def __init__(self, config: GlmasrConfig):
        super().__init__(config)
        self.recognizer = build_recognizer(config.recognizer, config.vocab_size)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: weights are read, or as their layers begin."""

    @cached_property
    def ear(self) -> Ear:
        """What has no weights, and is no part of the checkpoint."""
        return build(self.config.ear)

    def hear(self, input_values: Tensor, attention_mask: Tensor | None = None) -> Heard:
        """What `Recognizer` makes of waveforms (B, N) of 16 kHz; `attention_mask` (B, N) is 1 on real samples."""
        whole = torch.full((len(input_values),), input_values.shape[1], device=input_values.device)
        lengths = whole if attention_mask is None else attention_mask.sum(1)
        return self.recognizer(*self.ear.to(input_values.device)(input_values, lengths))

    def forward(self, input_values: Tensor, attention_mask: Tensor | None = None, **ignored: Any) -> CausalLMOutput:
        """`logits` (B, T, V) are natural logs of probabilities, one frame per 40 ms; token 0 is the blank."""
        heard = self.hear(input_values, attention_mask)
        # Behind its end an utterance is silent, as what decodes logits has no lengths.
        silent = torch.full_like(heard.ctc_log_probs, -1e4)
        silent[..., 0] = 0.0
        return CausalLMOutput(logits=torch.where(heard.padding[..., None], silent, heard.ctc_log_probs))


AutoConfig.register(GlmasrConfig.model_type, GlmasrConfig, exist_ok=True)
AutoModelForCTC.register(GlmasrConfig, GlmasrForCTC, exist_ok=True)


def write(bundle: Bundle, folder: Path) -> None:
    """config.json, model.safetensors, preprocessor and tokenizer files, and a model card that says how to use them."""
    assert bundle.tokenizer is not None
    settings = bundle.config
    config = GlmasrConfig(
        settings["ear"], settings["model"], settings["vocabulary_size"], training=settings["training"], pad_token_id=0
    )
    model = GlmasrForCTC(config)
    model.recognizer.load_state_dict(bundle.recognizer().state_dict())
    disable_progress_bar()
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)  # safetensors makes it private
    hearing = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": RATE_HZ,
        "padding_value": 0.0,
        "do_normalize": False,
        "return_attention_mask": True,
    }
    _write(folder / "preprocessor_config.json", hearing)
    (folder / TOKENIZER).mkdir()  # a tokenizer.json beside the weights would be one of their `tokenizers`
    bundle.tokenizer.save(folder / TOKENIZER)
    if isinstance(bundle.tokenizer, CharacterTokenizer):
        written = [symbol.replace("▁", "|") for symbol in table(bundle.tokenizer).symbols]
        names = ["<pad>", "<unk>", "<s>", *written]
        _write(folder / "vocab.json", {name: i for i, name in enumerate(names)})
        special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "<s>"}
        reading = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "word_delimiter_token": "|", **special}
        _write(folder / "tokenizer_config.json", reading)
    card = bundle.folder / "README.md"
    told = card.read_text(encoding="utf-8") if card.is_file() else f"# {folder.name}\n"
    (folder / "README.md").write_text(told.rstrip() + "\n" + USE, encoding="utf-8")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


USE = """
## Use with transformers

```python
import soundfile, torch
from glmasr.exporting.huggingface import GlmasrForCTC  # pip install glmasr; no trust_remote_code
from glmasr.text.tokenizer import open_tokenizer
from transformers import AutoFeatureExtractor

model = GlmasrForCTC.from_pretrained(FOLDER).eval()
waveform, rate = soundfile.read("speech.wav", dtype="float32")  # 16 kHz, mono
inputs = AutoFeatureExtractor.from_pretrained(FOLDER)(waveform, sampling_rate=rate, padding=True, return_tensors="pt")
with torch.inference_mode():
    best = model(**inputs).logits.argmax(-1)[0].unique_consecutive()
print(open_tokenizer(FOLDER / "tokenizer").decode(best.tolist()))
```

`FOLDER` is a `pathlib.Path` of this folder. The weights are safetensors; nothing is unpickled.
"""
