"""Command line in, transcripts or a comparison out: `glmasr transcribe`, `glmasr compare`.

Training has its own door, `make` and scripts/.
"""

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from glmasr.speech import InputError

FORMATS = ("txt", "srt", "vtt", "json")


def parser() -> argparse.ArgumentParser:
    """Everything `glmasr --help` teaches."""
    top = argparse.ArgumentParser(prog="glmasr", description="Transcribe speech with a bundle trained by glmasr.")
    verbs = top.add_subparsers(dest="verb", required=True)
    _transcribe_parser(verbs)
    _compare_parser(verbs)
    return top


def _transcribe_parser(verbs) -> None:
    transcribed = verbs.add_parser(
        "transcribe",
        help="audio files → text, subtitles or JSON",
        description="Transcribe audio files (WAV, FLAC, MP3, OGG at any rate) with a bundle.",
        epilog="example: glmasr transcribe --bundle runs/demo/pretrained/bundle call.wav --format srt",
    )
    transcribed.add_argument("files", nargs="+", metavar="FILE", help="audio files")
    transcribed.add_argument("--bundle", required=True, metavar="DIR", help="folder written by make finetune")
    transcribed.add_argument("--format", choices=FORMATS, default="txt", help="output format (default: txt)")
    transcribed.add_argument("--output", metavar="DIR", help="write FILE's name + .FORMAT here instead of printing")
    transcribed.add_argument("--decoding", choices=("ctc_greedy", "attention"), default="ctc_greedy", help="search")
    transcribed.add_argument("--device", default="cpu", help="torch device, e.g. cuda (default: cpu)")
    transcribed.set_defaults(run=transcribe)


def _compare_parser(verbs) -> None:
    compared = verbs.add_parser(
        "compare",
        help="two benchmark reports → what changed",
        description="Say what changed between two reports of make benchmark, and whether chance explains it.",
        epilog="example: glmasr compare runs/monday/report/report.json runs/friday/report/report.json",
    )
    compared.add_argument("before", metavar="A", type=Path, help="report.json, or its folder")
    compared.add_argument("after", metavar="B", type=Path, help="the same of the report to compare with it")
    compared.add_argument("--json", action="store_true", help="print JSON instead of a table")
    compared.set_defaults(run=compare)


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


def compare(args: argparse.Namespace) -> int:
    """Print what changed from report A to report B, as a table in Markdown or as JSON."""
    from glmasr.evaluation.compare import differences, in_words

    found = differences(args.before, args.after)
    print(json.dumps(found.as_json(), ensure_ascii=False, indent=2) if args.json else in_words(found).rstrip("\n"))
    return 0


def main() -> None:
    """Entry point: exit code 0, or 1 after one clear sentence."""
    args = parser().parse_args()
    try:
        sys.exit(args.run(args))
    except InputError as error:
        sys.exit(f"glmasr: {error}")
    except OSError as error:
        sys.exit(f"glmasr: {error.filename or 'a file'}: {error.strerror or error}")


if __name__ == "__main__":
    main()
