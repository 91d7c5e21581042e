"""Command line in, transcripts out: `glmasr transcribe`. Training has its own door, `make` and scripts/."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from glmasr.speech import InputError

FORMATS = ("txt", "srt", "vtt", "json")


def parser() -> argparse.ArgumentParser:
    """Everything `glmasr --help` teaches."""
    top = argparse.ArgumentParser(prog="glmasr", description="Transcribe speech with a bundle trained by glmasr.")
    verbs = top.add_subparsers(dest="verb", required=True)
    transcribe = verbs.add_parser(
        "transcribe",
        help="audio files → text, subtitles or JSON",
        description="Transcribe audio files (WAV, FLAC, MP3, OGG at any rate) with a bundle.",
        epilog="example: glmasr transcribe --bundle runs/demo/pretrained/bundle call.wav --format srt",
    )
    transcribe.add_argument("files", nargs="+", metavar="FILE", help="audio files")
    transcribe.add_argument("--bundle", required=True, metavar="DIR", help="folder written by make finetune")
    transcribe.add_argument("--format", choices=FORMATS, default="txt", help="output format (default: txt)")
    transcribe.add_argument("--output", metavar="DIR", help="write FILE's name + .FORMAT here instead of printing")
    transcribe.add_argument("--decoding", choices=("ctc_greedy", "attention"), default="ctc_greedy", help="search")
    transcribe.add_argument("--device", default="cpu", help="torch device, e.g. cuda (default: cpu)")
    return top


def transcribe(args: argparse.Namespace) -> int:
    """Print or write each file's transcript; a file that cannot be read is named and the others go on."""
    from glmasr.frontend.audio import read_audio
    from glmasr.text.subtitles import FORMATS as WRITERS
    from glmasr.transcriber import Transcriber

    transcriber = Transcriber(args.bundle, decoding=args.decoding, device=args.device)
    failed = 0
    for file in tqdm(args.files, disable=None if len(args.files) > 1 and args.output else True, unit="file"):
        try:
            text = WRITERS[args.format](transcriber([read_audio(file)])[0])
        except InputError as error:
            print(f"glmasr: {error}", file=sys.stderr)
            failed += 1
            continue
        if args.output:
            target = Path(args.output) / f"{Path(file).stem}.{args.format}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        else:
            print(text.rstrip("\n"))
    return 1 if failed else 0


def main() -> None:
    """Entry point: exit code 0, or 1 after one clear sentence."""
    args = parser().parse_args()
    try:
        sys.exit(transcribe(args))
    except InputError as error:
        sys.exit(f"glmasr: {error}")
    except OSError as error:
        sys.exit(f"glmasr: {error.filename or 'a file'}: {error.strerror or error}")


if __name__ == "__main__":
    main()
