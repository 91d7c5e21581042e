"""What an exported folder's README.md tells who finds it; each example is run by a test."""

ONNX = """\
# An export of glmasr for ONNX Runtime

`glmasr transcribe --bundle FOLDER speech.wav` transcribes with it and needs no torch; so do
`--stream` and `glmasr serve` for live captions where it was exported with `--streaming`. By hand:

```python
import numpy, onnxruntime, soundfile

waveform, rate = soundfile.read("speech.wav", dtype="float32")  # 16 kHz, mono, -1 … 1
graph = onnxruntime.InferenceSession("FOLDER/model.onnx")
inputs = {"waveform": waveform[None], "lengths": numpy.array([len(waveform)])}
log_probs, frames, context = graph.run(None, inputs)
best = log_probs[0, : frames[0]].argmax(-1)
tokens = best[numpy.flatnonzero(numpy.diff(best, prepend=-1))]
lines = open("FOLDER/tokens.txt", encoding="utf-8").read().splitlines()
symbols = {int(line.rsplit(" ", 1)[1]): line.rsplit(" ", 1)[0] for line in lines}
print("".join(symbols[token] for token in tokens if token > 2).replace("▁", " "))
```

- `model.onnx`: waveform (B, N), lengths (B) → log_probs (B, T, V), frames (B), context (B, T, D). These are natural
  logs, a frame for each 40 ms; token 0 is the blank.
- `decoder.onnx`, where the bundle has one: tokens (B, U) from the boundary (2) on, context, frames → log_probs (B, V)
  of what follows.
- `streaming.onnx`, with `--streaming`: {chunk} samples, the last {again} of which the next chunk hears again, and the
  state → log_probs (1, T, V) and the next state. The last chunk may be shorter. export.json has the shapes of the
  first state, all zeros; to bound memory drop the oldest `keys` and `values` (axis 3).
- `export.json`: where it is from, and how far each graph was from the bundle on real speech.
"""

SHERPA = """\
# An export of glmasr for sherpa-onnx

In the form of its Omnilingual ASR CTC models, which hand a graph the waveform itself, so log-mel is ours.

```python
import sherpa_onnx, soundfile

files = {"model": "FOLDER/model.onnx", "tokens": "FOLDER/tokens.txt"}
recognizer = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(**files)
waveform, rate = soundfile.read("speech.wav", dtype="float32")
stream = recognizer.create_stream()
stream.accept_waveform(rate, waveform)
recognizer.decode_stream(stream)
print(stream.result.text)
```

Recordings longer than a minute want its voice activity detector in front.
"""

SHERPA_STREAMING = """
## Live

`streaming.onnx` is in the form of its T-one CTC models, the only streaming ones that are handed samples. That form is
of 8 kHz and resamples what is said to be anything else: say 8000 of your 16 kHz, and times are right all the same.

```python
import numpy, sherpa_onnx, soundfile

files = {"model": "FOLDER/streaming.onnx", "tokens": "FOLDER/tokens.txt"}
recognizer = sherpa_onnx.OnlineRecognizer.from_t_one_ctc(**files)
samples, rate = soundfile.read("speech.wav", dtype="int16")  # 16 kHz, mono
samples = numpy.append(samples, numpy.full(rate, 32767))  # a second of full scale: it is over, hear what waits
stream = recognizer.create_stream()
for start in range(0, len(samples), 1600):
    stream.accept_waveform(8000, samples[start : start + 1600] / 32767)  # what it multiplies by, so nothing is rounded
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    print(recognizer.get_result(stream), end="\\r")
print()
```

It hears 640 ms at a time, 16 bits deep, and looks back 5 s. Streams are decoded one by one (`decode_stream`), `reset`
forgets up to 0.8 s that no caption has shown yet, and programs that tell the runtime the true rate cannot use it.
"""
