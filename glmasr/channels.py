"""A recording whose channels are one speaker each, as in a recorded call, in; a transcript that says who spoke out."""

from collections.abc import Callable
from dataclasses import replace

from glmasr.frontend.audio import probe_audio
from glmasr.speech import Transcript
from glmasr.text.written import joined
from glmasr.transcriber import Transcriber


def transcribe_apart(
    transcriber: Transcriber, path: str, progress: Callable[[float], object] | None = None
) -> Transcript:
    """Every channel of a file heard alone, as by `transcribe_file`; `progress` adds up to all channels' seconds.

    A file of one channel has one speaker. UnreadableAudio as from `read_blocks`.
    """
    channels = range(probe_audio(path).channels)
    return merged([transcriber.transcribe_file(path, progress, channel) for channel in channels])


def merged(heard: list[Transcript]) -> Transcript:
    """Transcripts of one recording's channels as one: segments in the order of their starts, each with its speaker.

    Speakers are "Speaker 1" and so on, after the channels. The language is that of the channel that says most.
    """
    segments = [
        replace(segment, speaker=f"Speaker {number}")
        for number, transcript in enumerate(heard, 1)
        for segment in transcript.segments
    ]
    segments.sort(key=lambda segment: (segment.start_seconds, segment.speaker))
    most = max(heard, key=lambda transcript: len(transcript.text))
    duration = max(transcript.duration_seconds for transcript in heard)
    return Transcript(joined([one.text for one in segments]), duration, tuple(segments), most.language)
