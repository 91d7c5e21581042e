"""A waveform in, its level in dBFS or the same waveform at another level out (0 dBFS = root mean square 1)."""

import numpy as np

FLOOR_DBFS = -120.0
"""What silence measures: below the quietest 16-bit signal, yet finite."""


def rms(waveform: np.ndarray) -> float:
    """Root mean square of a waveform (N), summed in double precision; 0 where it is empty."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) if len(waveform) else 0.0


def rms_dbfs(waveform: np.ndarray) -> float:
    """Level over the whole waveform (N), never below `FLOOR_DBFS`; a full-scale sine measures −3.01."""
    return max(20 * float(np.log10(max(rms(waveform), 1e-30))), FLOOR_DBFS)


def amplify(waveform: np.ndarray, gain_db: float) -> np.ndarray:
    """The waveform (N) louder by `gain_db`, as float32, not clipped."""
    return (waveform * 10 ** (gain_db / 20)).astype(np.float32)


def scale_to_level(waveform: np.ndarray, level_dbfs: float) -> np.ndarray:
    """The waveform (N) at `level_dbfs`, as float32, not clipped; silence stays silence."""
    present = rms(waveform)
    return (waveform * (10 ** (level_dbfs / 20) / present if present else 1.0)).astype(np.float32)
